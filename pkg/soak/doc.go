// Package soak runs the programs against everything that can happen to a node at once, and compares the kernel with a model
// whenever the node comes to rest. What happens follows from a seed: the short form in `go test` draws one, `make soak` runs
// long, and SOAK_SEED=n go test ./pkg/soak replays.
package soak
