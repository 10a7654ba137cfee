// Package runtime holds tests only: the project on real container runtimes, and the README's installation chapter as it is
// written. They run on nodes that the tests make, each with a root directory, a process tree and a network of its own, so
// that nothing of the machine's is changed; the machine lends its kernel and /usr.
//
// It is a module of its own because the project itself needs neither gRPC nor the CRI. `scripts/setup test deploy runtime`
// brings what the tests need beside Go, and `go test ./...` in this directory runs them, as root.
package runtime
