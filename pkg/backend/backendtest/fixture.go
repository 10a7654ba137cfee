package backendtest

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// callTime bounds one call of a backend.
var callTime = netnstest.Limit(20 * time.Second)

// fixture is a backend in a network namespace. Its methods make the calls there and fail the test where a call fails that
// should not.
type fixture struct {
	*testing.T
	backend backend.Backend
	space   *netnstest.Space
	node    *netnstest.Node // where there are packets
	s       policy.Settings
	records *records
	// addresses are the node's own that connections can be given.
	addresses []netip.Addr
}

func newFixture(t *testing.T, open func() backend.Backend, s policy.Settings) *fixture {
	t.Helper()
	f := &fixture{T: t, s: s, space: netnstest.NewSpace(t, "backend")}
	f.records = &records{all: map[attachment.ID]attachment.Attachment{}, pods: f.podsOf}
	_ = f.in(func(context.Context) error { f.backend = open(); return nil })
	backend.KeepCounts(f.backend)
	return f
}

// withNode moves to a node with hosts and pods.
func (f *fixture) withNode() {
	f.Helper()
	f.node = netnstest.NewNode(f.T)
	f.space = f.node.Space
}

// in makes a call in the namespace and returns its error.
func (f *fixture) in(call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	return f.space.Do(func() error { return call(ctx) })
}

func (f *fixture) must(err error, doing string) {
	f.Helper()
	if err != nil {
		f.Fatalf("%s: %v", doing, err)
	}
}

// observe reads the families of the settings.
func (f *fixture) observe() (got backend.Observed) {
	f.Helper()
	f.must(f.in(func(ctx context.Context) (err error) {
		got, err = f.backend.Observe(ctx, f.s, f.s.Families()...)
		return err
	}), "Observe")
	return got
}

// apply returns what Apply does.
func (f *fixture) apply(got backend.Observed, want ruleset.State) (changed bool, err error) {
	err = f.in(func(ctx context.Context) (err error) {
		changed, err = f.backend.Apply(ctx, got, want)
		return err
	})
	return changed, err
}

// sync observes and applies, and reports whether that wrote.
func (f *fixture) sync(want ruleset.State) bool {
	f.Helper()
	got := f.observe()
	drift := f.backend.Diff(got, want)
	changed, err := f.apply(got, want)
	f.must(err, "Apply")
	if changed != (len(drift) > 0) {
		f.Errorf("Apply wrote: %t, and Diff told %q", changed, drift)
	}
	return changed
}

// settle syncs, and then again, which must not write, and Diff must say so before.
func (f *fixture) settle(want ruleset.State) {
	f.Helper()
	f.sync(want)
	if lines := f.backend.Diff(f.observe(), want); len(lines) > 0 {
		f.Errorf("after an Apply, Diff tells %q", lines)
	}
	if f.sync(want) {
		f.Fatalf("a second Apply wrote again; now there is:\n%s", f.dump())
	}
}

// attach puts the attachment on record and attaches it, as the node does.
func (f *fixture) attach(a attachment.Attachment) error {
	f.records.put(a)
	want := f.state(f.policy()).Only(f.podsOf(a))
	return f.in(func(ctx context.Context) error { return f.backend.Attach(ctx, want) })
}

// detach takes the attachment off the record and detaches it, as the node does.
func (f *fixture) detach(a attachment.Attachment, known ...ruleset.Pod) error {
	f.records.remove(a)
	return f.in(func(ctx context.Context) error {
		return f.backend.Detach(ctx, f.s, f.s.Families(), a.ID(), known, f.records.of)
	})
}

// verify checks one attachment as CHECK does: without the destinations.
func (f *fixture) verify(a attachment.Attachment) error {
	want := f.state(policy.Policy{Settings: f.s}).Only(f.podsOf(a))
	return f.in(func(ctx context.Context) error { return f.backend.Verify(ctx, want) })
}

func (f *fixture) remove(families ...policy.Family) {
	f.Helper()
	for _, family := range families {
		f.must(f.in(func(ctx context.Context) error { return f.backend.Remove(ctx, f.s, family) }), "Remove")
	}
}

func (f *fixture) chain(family policy.Family) (state backend.ChainState) {
	f.Helper()
	f.must(f.in(func(ctx context.Context) (err error) {
		state, err = f.backend.Chain(ctx, f.s, family)
		return err
	}), "Chain")
	return state
}

// policy is the default one.
func (f *fixture) policy() policy.Policy { return policy.Default(f.s) }

func (f *fixture) state(p policy.Policy, attachments ...attachment.Attachment) ruleset.State {
	return ruleset.Build(p, attachments, f.hostNode())
}

func (f *fixture) hostNode() ruleset.Node { return ruleset.Node{Addresses: f.addresses} }

// podsOf are an attachment's, with the source addresses that it chose.
func (f *fixture) podsOf(a attachment.Attachment) []ruleset.Pod { return f.hostNode().Pods(f.s, a) }

// pod makes an attachment number n with an address in every family that is on.
func (f *fixture) pod(n int) attachment.Attachment {
	a := attachment.Attachment{Owner: attachment.Owner{Network: "net", ContainerID: "container" + string(rune('a'+n%26)) + time.Duration(n).String(), IfName: "eth0"}}
	a.Addresses = append(a.Addresses, address("10.244.0.0", n+2))
	if f.s.IPv6 {
		a.Addresses = append(a.Addresses, address("fd00:244::", n+2))
	}
	return a
}

// heir is another owner of the same addresses.
func heir(a attachment.Attachment) attachment.Attachment {
	a.ContainerID = "heir-of-" + a.ContainerID
	return a
}

func address(base string, n int) netip.Addr {
	bytes := netip.MustParseAddr(base).AsSlice()
	bytes[len(bytes)-2], bytes[len(bytes)-1] = byte(n>>8), byte(n)
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParsePrefix(text)
	}
	return out
}
