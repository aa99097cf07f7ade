#!/bin/sh
# Writes the repositories of this folder with a git that knows reftables: `make_fixtures.sh PATH_OF_GIT`, 2.45 or later.
# `stack`: several tables, a deleted reference, an annotated tag. `blocks`: 400 references in aligned blocks with an
# index. `sha256`: version 2 of the format. Beside each, what that git itself lists.
set -eu
git=$1
here=$(cd "$(dirname "$0")" && pwd)
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 TZ=UTC
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@lab GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@lab
export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

start() { # name, more options of init
    name=$1
    shift
    mkdir "$work/$name"
    cd "$work/$name"
    "$git" init -q --bare --template= -b main --ref-format=reftable "$@" .
    "$git" config reftable.blockSize 256
    tree=$("$git" hash-object -t tree -w --stdin < /dev/null)
    one=$("$git" commit-tree -m one "$tree")
    two=$("$git" commit-tree -m two -p "$one" "$tree")
    "$git" update-ref refs/heads/main "$one"
}

finish() {
    "$git" for-each-ref --format='%(objectname) %(refname)' > "$here/$name.txt"
    tar --sort=name --owner=0 --group=0 --mtime=@1700000000 -C "$work" -cf - "$name" | gzip -n9 > "$here/$name.tar.gz"
}

start stack
export GIT_TEST_REFTABLE_AUTOCOMPACTION=false
for name in a b c; do "$git" update-ref "refs/heads/$name" "$one"; done
"$git" tag -a -m one v1 "$one"
"$git" update-ref refs/heads/main "$two"
"$git" update-ref -d refs/heads/b
name=stack finish
unset GIT_TEST_REFTABLE_AUTOCOMPACTION

start blocks
seq 400 | sed "s|.*|create refs/heads/team/branch-& $one|" | "$git" update-ref --stdin
"$git" pack-refs --all
finish

start sha256 --object-format=sha256
"$git" tag -a -m one v1 "$one"
finish
