//! The demo: the whole story, against a folder and against GitHub.

mod support;

use support::{StandIn, TOKEN, World, ran};

#[test]
fn the_demo_brings_everything_back_and_leaves_nothing_behind() {
    let world = World::empty();
    let mut command = world.command(&["--json", "demo"]);
    // The demo makes its own key; a key of the environment must not matter.
    command.env_remove("AITHER_MASTER_KEY");
    let report = ran(command).expect(0).json();
    assert_eq!(report["identical"], true);
    assert!(report["entries"].as_u64().unwrap() > 800, "{report}");
    assert_eq!(report["notes"].as_array().unwrap().len(), 0, "PostgreSQL was left out: {report}");
    assert!(report["rows"].as_u64().unwrap() >= 7000, "{report}");
    world.assert_no_leftovers();
}

#[test]
fn the_demo_tells_the_same_story_with_github() {
    let world = World::empty();
    let github = StandIn::start(&world, &["--empty"]);
    let mut command = world.command(&["demo", "--to", "github://acme/backups"]);
    command.env("GITHUB_TOKEN", TOKEN).env("OFFSITE_GITHUB_API_URL", &github.url);
    let told = ran(command).expect(0).stderr;
    assert!(told.contains("everything came back"), "{told}");
    assert!(told.contains("stays at github://acme/backups"), "{told}");
    assert!(!told.contains(TOKEN));
    let puts = github.requests().iter().filter(|(method, ..)| method == "PUT").count();
    assert_eq!(puts, 1);
}
