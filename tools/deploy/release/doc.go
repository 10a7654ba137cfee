// Package release tests how the programs get their version, and what `make release` writes, with readers that are not its own:
// archive/tar, sha256sum, `go version -m`, and the SPDX project's library.
package release
