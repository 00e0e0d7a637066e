//! The main job to a directory, as a user runs it.

mod support;

use std::fs;

use support::World;

#[test]
fn what_is_backed_up_is_listed_verified_and_restored() {
    let world = World::new();
    let report = world.backup();
    assert_eq!(report["state"], "complete");
    let name = report["snapshot"].as_str().unwrap();
    assert!(world.path("dest").join(name).is_file());
    let list = world.run(&["--json", "list"]).expect(0).json();
    assert_eq!(list["snapshots"][0]["name"], name);
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 1);
    world.run(&["verify"]).expect(0);
    world.run(&["restore", "--target", "back"]).expect(0);
    assert_eq!(fs::read(world.restored("back", "sys/data/vault.enc")).unwrap(), b"sealed vault");
    assert_eq!(fs::read(world.restored("back", "sys/.env")).unwrap(), b"A=1\n");
    world.assert_no_leftovers();
}
