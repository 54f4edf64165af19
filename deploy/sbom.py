#!/usr/bin/env python3
"""Writes what the program is made of, from cargo's own resolution of Cargo.lock.

    deploy/sbom.py DIRECTORY

makes there throughway.cdx.json, a bill of materials (CycloneDX 1.5), and third-party-licences.txt, the texts that the
licences of those crates want to be handed on. Counted is what is linked into the program on this platform: neither what
only builds need nor what only tests need.
"""

import json
import pathlib
import subprocess
import sys
import tomllib

LICENCES = ("LICEN", "COPY", "NOTICE")


def main(directory):
    root, crates, edges = resolve()
    (directory / "throughway.cdx.json").write_text(json.dumps(bill(root, crates, edges), indent=1) + "\n")
    (directory / "third-party-licences.txt").write_text("\n".join(texts(crates)))


def resolve():
    """The program, the crates linked into it, and who needs whom, by cargo's identifiers."""
    host = next(line.split()[1] for line in output("rustc", "-vV").splitlines() if line.startswith("host:"))
    found = json.loads(output("cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", host))
    packages = {package["id"]: package for package in found["packages"]}
    needs = {
        node["id"]: [dep["pkg"] for dep in node["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
        for node in found["resolve"]["nodes"]
    }
    root = found["resolve"]["root"]
    linked, waiting = {}, [root]
    while waiting:
        crate = waiting.pop()
        # A macro runs while the program is compiled, and is not in it.
        if crate in linked or any("proc-macro" in target["kind"] for target in packages[crate]["targets"]):
            continue
        linked[crate] = packages[crate]
        waiting += needs[crate]
    edges = {crate: sorted(name(packages[need]) for need in needs[crate] if need in linked) for crate in linked}
    program = linked.pop(root)
    return program, sorted(linked.values(), key=name), edges


def bill(root, crates, edges):
    checksums = {
        (package["name"], package["version"]): package.get("checksum")
        for package in tomllib.loads(pathlib.Path("Cargo.lock").read_text())["package"]
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(root, None) | {"type": "application"}},
        "components": [component(crate, checksums[crate["name"], crate["version"]]) for crate in crates],
        "dependencies": [
            {"ref": name(crate), "dependsOn": edges[crate["id"]]} for crate in [root, *crates]
        ],
    }


def component(crate, checksum):
    described = {
        "type": "library",
        "bom-ref": name(crate),
        "name": crate["name"],
        "version": crate["version"],
        "purl": name(crate),
        # Older crates part alternatives by a slash.
        "licenses": [{"expression": crate["license"].replace("/", " OR ")}],
    }
    if checksum:
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return described


def texts(crates):
    """Each text once, under the crates that come with it."""
    users = {}
    for crate in crates:
        folder = pathlib.Path(crate["manifest_path"]).parent
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name.upper().startswith(LICENCES):
                text = file.read_text(errors="replace").strip()
                users.setdefault(text, []).append(f"{crate['name']} {crate['version']}")
    for text, whose in users.items():
        yield f"==== {', '.join(dict.fromkeys(whose))}\n\n{text}\n"


def name(crate):
    return f"pkg:cargo/{crate['name']}@{crate['version']}"


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
