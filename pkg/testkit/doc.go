// Package testkit is what the tests of several packages share about this project: their TestMain, the programs built from the
// source as it is now, the kinds of rules that everything is tested with, and a node on which the agent runs.
//
// It refuses to judge: it has no assertions about rules or policies, and knows no chain by name. What is true of network
// namespaces in general is in pkg/netnstest. It is not for production code.
package testkit
