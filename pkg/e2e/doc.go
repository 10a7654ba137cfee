// Package e2e holds the acceptance tests of the agent: the real programs on real kernels' rules, in network namespaces, held
// to what the project promises whatever else happens on the node. Every test runs once per kind of rules.
//
// It has no code of its own and refuses to look inside: what it sees is what an operator, a runtime or a pod would.
package e2e
