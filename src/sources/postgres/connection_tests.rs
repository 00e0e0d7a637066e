use super::*;

fn settings(url: &str) -> String {
    let connection = Connection::from_url(url).unwrap();
    let mut pairs: Vec<String> = Vec::new();
    for (name, value) in &connection.settings {
        if (*name, value.as_str()) != ("PGCONNECT_TIMEOUT", "10") {
            pairs.push(format!("{}={}", &name[2..], value.as_str()));
        }
    }
    pairs.join(" ")
}

#[test]
fn reads_every_form_of_url() {
    for (url, expected) in [
        ("postgres://", "DATABASE=postgres"),
        ("postgresql://h", "DATABASE=postgres HOST=h"),
        (" postgres://u:p@h:5433/d\n", "DATABASE=d HOST=h PASSWORD=p PORT=5433 USER=u"),
        ("postgresql+asyncpg://u:p@h/d", "DATABASE=d HOST=h PASSWORD=p USER=u"),
        ("POSTGRES://u@h/d", "DATABASE=d HOST=h USER=u"),
        ("postgres://u%40x:p%2F%3A%25@h/d%20b", "DATABASE=d b HOST=h PASSWORD=p/:% USER=u@x"),
        ("postgres://u:p@ss@h/d", "DATABASE=d HOST=h PASSWORD=p@ss USER=u"),
        ("postgres://u:100%@h/d", "DATABASE=d HOST=h PASSWORD=100% USER=u"),
        ("postgres:///d?host=/run/pg", "DATABASE=d HOST=/run/pg"),
        ("postgres://u@/d?host=/run/pg&port=6", "DATABASE=d HOST=/run/pg PORT=6 USER=u"),
        ("postgres://%2Frun%2Fpg/d", "DATABASE=d HOST=/run/pg"),
        ("postgres://[::1]:5433/d", "DATABASE=d HOST=::1 PORT=5433"),
        ("postgres://[fe80::1]/d", "DATABASE=d HOST=fe80::1"),
        ("postgres://a:1,b:2/d", "DATABASE=d HOST=a,b PORT=1,2"),
        ("postgres://a,b/d", "DATABASE=d HOST=a,b"),
        ("postgres://a:1,b/d", "DATABASE=d HOST=a,b PORT=1,"),
        (
            "postgres://h/d?sslmode=verify-full&sslrootcert=%2Fca",
            "DATABASE=d HOST=h SSLMODE=verify-full SSLROOTCERT=/ca",
        ),
        ("postgres://h/d?user=u&password=p%26q", "DATABASE=d HOST=h PASSWORD=p&q USER=u"),
        ("postgres://h/d?ssl=true&keepalives=1&client_encoding=utf8", "DATABASE=d HOST=h SSLMODE=require"),
        (
            "postgres://h/d?connect_timeout=3&options=-c%20a%3Db",
            "CONNECT_TIMEOUT=3 DATABASE=d HOST=h OPTIONS=-c a=b",
        ),
        ("postgres://h/?dbname=x", "DATABASE=x HOST=h"),
    ] {
        assert_eq!(settings(url), expected, "{url}");
    }
}

#[test]
fn refuses_what_it_cannot_read_without_quoting_it() {
    for (url, expected) in [
        ("mysql://u:geheim@h/d", "does not start with"),
        ("geheim", "does not start with"),
        ("postgres://u:geheim?x@h/d", "a `?` before its `@`"),
        ("postgres://u:1?gehe=x@h/d", "a `?` before its `@`"),
        ("postgres://u:12/gehe@h/d", "a `/` before its `@`"),
        ("postgres://u:geheim@h:http/d", "its port is not"),
        ("postgres://u:geheim@h:0/d", "its port is not"),
        ("postgres://u:geheim@[::1/d", "IPv6"),
        ("postgres://u:geheim%00@h/d", "is not text"),
        ("postgres://u:geheim%FF@h/d", "is not text"),
        ("postgres://u:geheim@h/d?sslmod=require", "`sslmod`"),
        ("postgres://u@h/d?gehe%69m@x=1", "not a list of parameters"),
    ] {
        let error = Connection::from_url(url).unwrap_err();
        assert!(error.message().contains(expected), "{url}: {error}");
        assert!(!format!("{error:?}").contains("gehe"), "{url}: {error:?}");
    }
}

#[test]
fn shows_the_server_and_the_role_but_not_the_password() {
    for (url, expected) in [
        ("postgres://u:geheim@h:5433/d", "h:5433/u"),
        ("postgres://u:geheim@[::1]/d", "[::1]:5432/u"),
        ("postgres://a:1,b/d", "a:1,b:5432"),
        ("postgres://u@/d?host=/run/pg", "/run/pg:5432/u"),
        ("postgres://", "local socket:5432"),
        ("postgres:///?service=prod", "service prod"),
    ] {
        let connection = Connection::from_url(url).unwrap();
        assert_eq!(connection.shown(), expected);
        assert!(!format!("{connection:?}").contains("geheim"));
    }
}

#[test]
fn children_see_the_connection_and_none_of_our_secrets() {
    let connection = Connection::from_url("postgres://u:geheim@h/d").unwrap();
    let mut command = Command::new("/usr/bin/env");
    // Stands for anything inherited: the environment is cleared first.
    command.env("GITHUB_TOKEN", "ours").env("PGSSLKEY", "inherited");
    connection.with_option("a=b").with_option("c=d").apply(&mut command);
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let mut lines: Vec<&str> = output.lines().filter(|line| line.starts_with("PG")).collect();
    lines.sort_unstable();
    let expected =
        "PGCONNECT_TIMEOUT=10 PGDATABASE=d PGHOST=h PGOPTIONS=-c a=b -c c=d PGPASSWORD=geheim PGUSER=u";
    assert_eq!(lines.join(" "), expected);
    assert!(output.contains("LC_ALL=C\n") && !output.contains("GITHUB_TOKEN"));
}
