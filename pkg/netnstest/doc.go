// Package netnstest builds throw-away nodes, hosts and pods out of network
// namespaces, for tests (and the demo) that want to see real packets.
//
// A test that needs one says
//
//	netnstest.Require(t, "iptables")
//	node := netnstest.NewNode(t)
//	pod := node.AddPod(t, "a", "10.244.0.5")
//	seen, err := pod.Seen("udp", node.Internet.IPv4)
//
// What it refuses to do: it never creates an interface, a route, a rule or a
// packet in the namespace the test was started in; it has no knowledge of the
// product (no chain names, no policy); and it is not for production code. It
// needs root and Linux.
//
// Everything it makes is named after the process and a counter, so that test
// packages can run side by side, and goes away with the test: through Cleanup,
// on SIGINT and SIGTERM, and, where a test was killed, at the next run.
package netnstest
