//! Holds design.md's rules of the source tree: who may import whom, how long a file gets, where `unsafe` may stand.
//!
//! Reads the sources line by line. Test code (`#[cfg(test)]` to the end of a file, `tests.rs`, `tests/`) may import what
//! it likes; comments don't count.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Importable by all; of ours they import only each other.
const EVERYWHERE: &[&str] = &["address", "clock", "metrics", "logging", "wire", "rate", "places", "volume", "live"];

/// Who may import whom, besides themselves and [`EVERYWHERE`]. `a::b` allows that part of `a` alone.
const RULES: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("cli", &["app", "config", "credentials", "net", "turn::probe"]),
    ("app", &["web", "gateway", "signaling", "turn", "relay", "net", "policy", "config", "credentials"]),
    ("web", &["gateway", "signaling", "turn::status", "credentials", "net"]),
    ("gateway", &["signaling", "net"]),
    ("turn", &["relay::command", "policy", "credentials"]),
    ("relay", &["net", "policy"]),
    ("signaling", &["credentials"]),
    ("policy", &[]),
    ("credentials", &[]),
    ("net", &[]),
    ("config", &[]),
    ("address", &[]),
    ("clock", &[]),
    ("metrics", &["address"]),
    ("logging", &[]),
    ("wire", &[]),
    ("rate", &["address"]),
    ("places", &["address", "metrics"]),
    ("volume", &[]),
    ("live", &[]),
];

const LINES: usize = 600;

#[test]
fn every_module_imports_only_what_the_design_lets_it() {
    let faults = faults_of(|file, line| imports(line).into_iter().find_map(|path| judge(file, &path)));

    assert!(faults.is_empty(), "who may import whom (RULES in tests/layering.rs, design.md):\n{faults}");
}

#[test]
fn every_top_level_module_has_a_rule() {
    let unknown: Vec<_> = sources()
        .into_iter()
        .map(|file| file.module)
        .filter(|module| module != "lib" && rule(module).is_none())
        .collect();

    assert!(unknown.is_empty(), "no rule in tests/layering.rs for: {unknown:?}");
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let mut faults = String::new();
    for file in sources() {
        let lines = file.text.lines().count();
        if lines > LINES {
            let _ = writeln!(faults, "{}: {lines} lines: look for the second idea in it", file.path.display());
        }
    }

    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn unsafe_stands_only_in_net() {
    let faults = faults_of(|file, line| {
        let found = words(line).any(|word| word == "unsafe");
        (found && file.module != "net").then(|| "`unsafe` outside net/".to_owned())
    });

    assert!(faults.is_empty(), "{faults}");
}

/// Else a lock names the registry of whoever made it, and installs from nowhere else.
#[test]
fn no_package_lock_says_where_packages_come_from() {
    let mut locks = Vec::new();
    for tree in ["tests", "benches"] {
        find_locks(&Path::new(env!("CARGO_MANIFEST_DIR")).join(tree), &mut locks);
    }
    let resolved = locks.iter().filter(|lock| fs::read_to_string(lock).unwrap().contains("\"resolved\""));
    let faults: Vec<_> = resolved.collect();

    assert!(locks.len() >= 2, "{locks:?}");
    assert!(faults.is_empty(), "omit-lockfile-registry-resolved=true is missing in .npmrc beside {faults:?}");
}

#[test]
fn the_checker_sees_what_it_must() {
    let file =
        |module: &str, root| Source { path: PathBuf::new(), module: module.to_owned(), root, text: String::new() };

    assert_eq!(imports("use crate::relay::shard;"), ["relay::shard"]);
    assert_eq!(imports("    let x = crate::net::udp::bind(crate::config::read());"), ["net::udp", "config::read"]);
    assert_eq!(imports("pub(crate) fn f() {}"), [""; 0]);
    assert_eq!(imports("use crate::{net, turn};"), ["{"]);
    assert!(judge(&file("turn", false), "relay::shard").is_some());
    assert!(judge(&file("turn", false), "relay::command").is_none());
    assert!(judge(&file("turn", false), "signaling::hub").is_some());
    assert!(judge(&file("signaling", false), "turn").is_some());
    assert!(judge(&file("relay", false), "web::connection").is_some());
    assert!(judge(&file("net", false), "wire").is_none());
    assert!(judge(&file("wire", false), "address").is_some());
    assert!(judge(&file("turn", false), "{").is_some());
    assert!(judge(&file("turn", true), "super").is_some());
    assert!(judge(&file("turn", false), "super").is_none());
}

struct Source {
    path: PathBuf,
    /// The top-level module that it belongs to.
    module: String,
    /// Whether it is that module itself, whose `super` is the crate.
    root: bool,
    text: String,
}

/// Those below `directory`, but for those of installed packages.
fn find_locks(directory: &Path, locks: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") {
            find_locks(&path, locks);
        } else if path.ends_with("package-lock.json") {
            locks.push(path);
        }
    }
}

/// What `check` finds in each line of code, as `file:line: rule` lines.
fn faults_of(check: impl Fn(&Source, &str) -> Option<String>) -> String {
    let mut faults = String::new();
    for file in sources() {
        for (index, line) in code(&file) {
            if let Some(rule) = check(&file, line) {
                let _ = writeln!(faults, "{}:{index}: {rule}\n    {}", file.path.display(), line.trim());
            }
        }
    }
    faults
}

fn judge(file: &Source, path: &str) -> Option<String> {
    let module = file.module.as_str();
    if path == "super" {
        return file.root.then(|| format!("`super` leaves {module}: name the module by `crate::`"));
    }
    let target = path.split("::").next().unwrap_or(path);
    if matches!(target, "{" | "*" | "self") {
        return Some("one parent per line, so that imports can be read: `use crate::module::Item;`".to_owned());
    }
    if target == module || module == "lib" {
        return None;
    }
    let shared = EVERYWHERE.contains(&target) && !EVERYWHERE.contains(&module);
    let allowed = rule(module).unwrap_or_default();
    let named = allowed.iter().any(|rule| path == *rule || path.starts_with(&format!("{rule}::")));
    (!shared && !named).then(|| format!("{module} may not import {path}; it may import {allowed:?} and {EVERYWHERE:?}"))
}

fn rule(module: &str) -> Option<&'static [&'static str]> {
    RULES.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed)
}

/// The paths into our crate in a line, without `crate::`, two parts at most; `super` for one that climbs.
fn imports(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "throughway::", "super::"] {
        for (at, _) in line.match_indices(root) {
            let before = line.get(..at).unwrap_or_default();
            // `super::super::x` counts once; `_crate::` and `$crate::` are other words.
            if before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | ':')) {
                continue;
            }
            let rest = line.get(at + root.len()..).unwrap_or_default();
            let part = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
            let first = part(rest);
            let second =
                rest.strip_prefix(&first).and_then(|rest| rest.strip_prefix("::")).map(part).unwrap_or_default();
            found.push(match (root, first.as_str(), second.as_str()) {
                ("super::", _, _) => "super".to_owned(),
                (_, "", _) => rest.chars().take(1).collect(),
                (_, first, second) if second.starts_with(|c: char| c.is_lowercase()) => format!("{first}::{second}"),
                (_, first, _) => first.to_owned(),
            });
        }
    }
    found
}

/// The lines that are neither comments nor tests, numbered from 1. A module of tests ends the file it stands in.
fn code(file: &Source) -> impl Iterator<Item = (usize, &str)> {
    let tests = file.text.find("#[cfg(test)]\nmod tests {").unwrap_or(file.text.len());
    let lines = file.text.get(..tests).unwrap_or_default().lines().enumerate();
    lines.map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// Every file of `src` that is not test code.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if name == "tests" {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(source(&root, &path, &name));
            }
        }
    }
    assert!(files.len() > 10, "the sources are not where they are looked for");
    files
}

fn source(root: &Path, path: &Path, name: &str) -> Source {
    let inside = path.strip_prefix(root).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    let module = first.trim_end_matches(".rs").to_owned();
    let depth = inside.components().count();
    let is_root = depth == 1 || (depth == 2 && name == "mod");
    Source { path: Path::new("src").join(inside), module, root: is_root, text: fs::read_to_string(path).unwrap() }
}
