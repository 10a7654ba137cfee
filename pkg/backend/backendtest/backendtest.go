// Package backendtest is the conformance suite: what every backend must do, whatever kind of rules it writes. A backend's own
// package calls Run and adds tests only for what is peculiar to it.
//
// It looks at backends through the interface, and at the kernel through other programs (iptables-save, nft, packets),
// never through the backend's own eyes. Every check has a network namespace of its own, and it refuses to run in the one that
// it was started in.
package backendtest

import (
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// check is one thing that must be true of a backend.
type check struct {
	name string
	run  func(f *fixture)
}

var checks = []check{
	{"Probe finds the host fit and leaves nothing", probeLeavesNothing},
	{"Apply on nothing creates everything, once", applyCreatesOnce},
	{"Apply without a reading fails where something is there", applyWithoutReadingFails},
	{"Apply follows the policy", applyFollowsPolicy},
	{"Apply with KeepChain leaves a filled chain", keepChainLeavesFilled},
	{"Apply with KeepChain fills an empty chain", keepChainFillsEmpty},
	{"Apply with KeepChain for one family leaves the other", keepChainOneFamily},
	{"Apply removes pods that are not wanted", applyRemovesPods},
	{"Apply with one address twice is stable", applyTwoOwners},
	{"Apply repairs what other software broke", applyMends},
	{"Apply switches the sources to and fro", applySwitchesSources},
	{"Apply switches IPv6 on and Remove takes it out", applySwitchesIPv6},
	{"Apply moves to a chain of another name", applyMovesChain},
	{"Apply takes every setting", applyTakesSettings},
	{"Attach needs the rest", attachNeedsRest},
	{"Attach, Verify, Detach", attachVerifyDetach},
	{"Attach twice is as once", attachTwice},
	{"Attach hands an address over", attachHandsOver},
	{"An address of several attachments goes with the last", sharedAddress},
	{"An address of a dead and a living attachment, after a flush", sharedAfterFlush},
	{"An address of several attachments that go at once", sharedInParallel},
	{"Detach of what is not there", detachNothing},
	{"Attach and Detach in parallel", parallel},
	{"Detach without a record in parallel", parallelUnrecorded},
	{"Observe tells the pods", observeTellsPods},
	{"Verify names what is missing", verifyNamesMissing},
	{"Remove leaves nothing", removeLeavesNothing},
	{"Chains finds every name, RemoveAll removes them", removeAllFindsChains},
	{"Foreign objects are never touched", foreignUntouched},
	{"Packets are seen from the right address", packetVerdicts},
	{"Packets of all sources", packetsOfAllSources},
	{"Multicast is masqueraded where all sources are, and kept for pods", multicast},
	{"Packets take the ports that they may", packetPorts},
	{"Counters survive an Apply that changes nothing", countersSurvive},
	{"Traffic is counted by family and verdict, also beyond a new policy", trafficCounts},
	{"Prefixes are counted one by one, whatever becomes of the rules", prefixesCount},
	{"Packets leave through the output interfaces that are meant", outputInterfaces},
	{"Packets of the node, of pods that opted out and of others", nodeTraffic},
	{"Attach, Verify and Release of addresses that opted out", attachWithNodeTraffic},
	{"Changes of the scope leak nothing under a stream", scopeStream},
	{"Egress groups give the addresses that the policy chooses", egressPackets},
	{"An egress group for all destinations", egressEverything},
	{"Egress groups take the ports that they may", egressPorts},
	{"Egress groups follow the node's addresses, and the rest counts on", egressAddressesChange},
	{"Egress groups follow the policy", egressFollowsPolicy},
	{"Apply with KeepChain leaves egress groups", egressKeepsChain},
	{"Remove of a family takes its egress groups out", egressFamilyGoes},
	{"Traffic tells what is translated and dropped", egressTraffic},
	{"Pods get the source addresses that they chose", chosenSources},
	{"Attach and Detach of a pod that chose its source address", attachChosenSource},
	{"An address whose owners chose different source addresses", sharedChosenSource},
	{"Chosen source addresses where all sources are governed", chosenOfAllSources},
}

// stacks are the address families that a node may have on.
var stacks = []struct {
	name string
	ipv6 bool
}{{"IPv4", false}, {"dual stack", true}}

// Run holds a backend to the suite. open is called inside each check's network namespace.
func Run(t *testing.T, open func() backend.Backend) {
	netnstest.Require(t, "nft", "iptables-nft-save", "iptables-legacy-save")
	// Locks that are shared by the whole machine would let other tests disturb this one.
	t.Setenv("XTABLES_LOCKFILE", t.TempDir()+"/xtables.lock")
	for _, stack := range stacks {
		t.Run(stack.name, func(t *testing.T) {
			if netnstest.Emulated() && !stack.ipv6 {
				t.Skip("dual stack has IPv4's part of every case")
			}
			s := policy.DefaultSettings()
			s.IPv6 = stack.ipv6
			for _, c := range checks {
				t.Run(c.name, func(t *testing.T) { c.run(newFixture(t, open, s)) })
			}
		})
	}
}
