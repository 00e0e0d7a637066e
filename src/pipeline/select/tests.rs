use super::*;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

struct Tree {
    _dir: tempfile::TempDir,
    root: PathBuf,
}

impl Tree {
    fn new(files: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, *file).unwrap();
        }
        Self { _dir: dir, root }
    }

    fn walk(&self, groups: &[(&str, &[&str], &[&str], bool)]) -> (Vec<String>, Vec<(String, String, bool)>) {
        let mut tier1 = BTreeMap::new();
        for (name, paths, exclude, optional) in groups {
            let paths = paths.iter().map(|p| self.root.join(p)).collect();
            let exclude = exclude.iter().map(|e| (*e).to_owned()).collect();
            tier1.insert((*name).to_owned(), Tier1 { paths, exclude, optional: *optional });
        }
        let (mut items, mut skipped) = (Vec::new(), Vec::new());
        let prefix = format!("{}/", self.root.display());
        let short = |path: &str| path.strip_prefix(&prefix).map(str::to_owned);
        let selection = Selection::new(&tier1).unwrap();
        selection
            .walk(&mut |event| {
                match event {
                    Event::Item(item) => {
                        let group = item.tier1.unwrap_or("-".into());
                        items.extend(short(item.path.to_str().unwrap()).map(|p| format!("{group}:{p}")));
                    }
                    Event::Skipped(s) => skipped.push((short(&s.path).unwrap(), s.reason, s.required)),
                }
                Ok(())
            })
            .unwrap();
        let mut unique = items.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), items.len(), "taken twice: {items:?}");
        (unique, skipped)
    }
}

#[test]
fn folders_above_a_root_are_taken_and_nothing_beside_it() {
    let tree = Tree::new(&["data/vault/v.enc", "data/other/x"]);
    let (items, skipped) = tree.walk(&[("s", &["data/vault/v.enc"], &[], false)]);
    assert_eq!(items, ["-:data", "-:data/vault", "s:data/vault/v.enc"]);
    assert!(skipped.is_empty());
}

#[test]
fn the_innermost_root_owns_what_is_below_it() {
    let tree = Tree::new(&["d/a", "d/sub/b", "d/sub/deep/c.tmp"]);
    let (items, _) = tree.walk(&[
        ("outer", &["d"], &["**/*.tmp"], false),
        ("inner", &["d/sub/deep", "d/sub/deep/"], &[], false),
    ]);
    assert_eq!(
        items,
        [
            "inner:d/sub/deep",
            "inner:d/sub/deep/c.tmp",
            "outer:d",
            "outer:d/a",
            "outer:d/sub",
            "outer:d/sub/b"
        ]
    );
}

#[test]
fn excludes_are_gitignore_patterns_below_the_root() {
    let tree = Tree::new(&["d/a.tmp", "d/keep.tmp", "d/x/b.tmp", "d/cache/c", "d/x/cache/d", "d/logs/e"]);
    let (items, _) = tree.walk(&[("g", &["d"], &["*.tmp", "!keep.tmp", "/cache/", "logs"], false)]);
    assert_eq!(items, ["g:d", "g:d/keep.tmp", "g:d/x", "g:d/x/cache", "g:d/x/cache/d"]);
}

#[test]
fn missing_is_degraded_unless_it_is_optional() {
    let tree = Tree::new(&["a"]);
    let (_, skipped) = tree.walk(&[("g", &["gone"], &[], false), ("o", &["gone-too"], &[], true)]);
    assert_eq!(skipped, [("gone".to_owned(), "missing".to_owned(), true)]);
}

#[test]
fn caches_are_kept_as_empty_folders_and_named() {
    let tree = Tree::new(&["d/c/CACHEDIR.TAG", "d/c/big", "d/not/CACHEDIR.TAG", "d/not/kept"]);
    fs::write(tree.root.join("d/c/CACHEDIR.TAG"), [CACHE_SIGNATURE, b"\n# x"].concat()).unwrap();
    let (items, skipped) = tree.walk(&[("g", &["d"], &[], false)]);
    assert_eq!(items, ["g:d", "g:d/c", "g:d/not", "g:d/not/CACHEDIR.TAG", "g:d/not/kept"]);
    assert_eq!(skipped, [("d/c".to_owned(), "a cache, says its CACHEDIR.TAG".to_owned(), false)]);
}

#[test]
fn sockets_and_fifos_are_named_and_left_out() {
    let tree = Tree::new(&["d/a"]);
    let _socket = UnixListener::bind(tree.root.join("d/s")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, tree.root.join("d/p"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let (items, mut skipped) = tree.walk(&[("g", &["d"], &[], false)]);
    skipped.sort();
    assert_eq!(items, ["g:d", "g:d/a"]);
    assert_eq!(skipped, [("d/p".into(), "a fifo".into(), false), ("d/s".into(), "a socket".into(), false)]);
}

#[test]
fn symlinks_are_taken_as_symlinks_and_never_followed() {
    let tree = Tree::new(&["d/a", "elsewhere/secret"]);
    symlink("../elsewhere", tree.root.join("d/link")).unwrap();
    symlink("loop", tree.root.join("d/loop")).unwrap();
    let (items, skipped) = tree.walk(&[("g", &["d"], &[], false)]);
    assert_eq!(items, ["g:d", "g:d/a", "g:d/link", "g:d/loop"]);
    assert!(skipped.is_empty());
}

#[test]
fn a_root_behind_a_symlink_is_taken_where_it_really_is() {
    let tree = Tree::new(&["disk/data/v"]);
    symlink("disk/data", tree.root.join("data")).unwrap();
    let (items, skipped) = tree.walk(&[("g", &["data/v"], &[], false)]);
    assert_eq!(items, ["-:data", "-:disk", "-:disk/data", "g:disk/data/v"]);
    assert!(skipped.is_empty());
}

#[test]
fn a_root_that_is_a_symlink_to_something_uncovered_is_degraded() {
    let tree = Tree::new(&["disk/v"]);
    symlink("disk", tree.root.join("data")).unwrap();
    let (items, skipped) = tree.walk(&[("g", &["data"], &[], false)]);
    assert_eq!(items, ["g:data"]);
    assert!(skipped[0].2 && skipped[0].1.contains("which no tier-1 path covers"), "{skipped:?}");
    assert!(tree.walk(&[("g", &["data", "disk"], &[], false)]).1.is_empty());
}
