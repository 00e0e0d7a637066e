use super::*;

type Headers = &'static [(&'static str, &'static str)];

fn fault(status: u16, headers: &[(&'static str, &str)], message: &str) -> (bool, Option<Duration>, Error) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, value.parse().unwrap());
    }
    let body = serde_json::json!({ "message": message }).to_string();
    match refusal("github://a/b", status, &map, body.as_bytes()) {
        Fault::Final(error) => (false, None, error),
        Fault::Passing(error, wish) => (true, wish, error),
    }
}

#[test]
fn what_cannot_get_better_is_not_tried_again() {
    let table: [(u16, Headers, &str, &str); 9] = [
        (401, &[], "Bad credentials", "token is wrong or has expired"),
        (404, &[], "Not Found", "no such repository, or the token has no access"),
        (404, &[], "Branch nope not found", "branch does not exist"),
        (
            403,
            &[("x-accepted-github-permissions", "contents=write")],
            "Resource not accessible",
            "may not do this",
        ),
        (403, &[], "Repository was archived so is read-only.", "archived"),
        (
            301,
            &[("location", "https://api.github.com/repositories/1")],
            "Moved Permanently",
            "renamed or moved",
        ),
        (409, &[], "Repository rule violations found", "a rule protects"),
        (422, &[], "Sorry, your input was too large to process.", "too large"),
        (418, &[], "teapot", "not expected"),
    ];
    for (status, headers, message, words) in table {
        let (again, _, error) = fault(status, headers, message);
        assert!(!again && error.message().contains(words), "{status} {message}: {error}");
    }
    assert!(
        fault(403, &[("x-accepted-github-permissions", "contents=write")], "")
            .2
            .next_step()
            .unwrap()
            .contains("contents=write")
    );
}

#[test]
fn rate_limits_are_waited_for_as_github_says() {
    let seconds = |headers: &[(&'static str, &str)], message: &str| {
        let (again, wish, _) = fault(403, headers, message);
        assert!(again);
        wish.unwrap().as_secs()
    };
    assert_eq!(seconds(&[("retry-after", "7")], ""), 7);
    assert_eq!(seconds(&[], "You have exceeded a secondary rate limit"), 60);
    let reset = (chrono::Utc::now().timestamp() + 30).to_string();
    let wait =
        seconds(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &reset)], "API rate limit exceeded");
    assert!((29..=31).contains(&wait), "{wait}");
    assert!(fault(429, &[], "").0);
}

#[test]
fn server_errors_and_other_writers_pass() {
    for status in [500, 502, 503, 504, 409] {
        assert!(fault(status, &[], "main is at 1 but expected 2").0, "{status}");
    }
}

#[test]
fn public_archived_and_read_only_repositories_are_refused() {
    let repository = |private, archived, push| serde_json::json!({ "private": private, "archived": archived, "permissions": { "push": push } });
    assert!(condition("a", &repository(true, false, true), false).is_ok());
    assert!(condition("a", &repository(false, false, true), true).unwrap().warnings[0].contains("public"));
    assert!(condition("a", &repository(false, false, true), false).unwrap_err().message().contains("public"));
    assert!(condition("a", &repository(true, true, true), false).unwrap_err().message().contains("archived"));
    assert!(
        condition("a", &repository(true, false, false), false)
            .unwrap_err()
            .message()
            .contains("cannot write")
    );
}
