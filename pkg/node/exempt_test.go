package node

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// nodeTraffic is the default policy with the node's traffic in it.
func nodeTraffic() policy.Policy {
	settings := policy.DefaultSettings()
	settings.NodeTraffic = true
	return policy.Default(settings)
}

func (k *kernel) syncTo(t *testing.T, p policy.Policy) (result Result) {
	t.Helper()
	k.in(t, func(ctx context.Context) (err error) {
		result, err = k.Sync(ctx, p)
		return err
	})
	return result
}

// wantExempt compares the kernel with the addresses that the rules for the node's traffic must pass over: it is equal to exactly these.
func (k *kernel) wantExempt(t *testing.T, when string, want ...string) {
	t.Helper()
	for _, also := range []string{"", "10.1.9.9"} { // the second shows that a difference would be seen
		for _, one := range []string{"", "without the first"} {
			addresses := slices.Clone(want)
			if one != "" && len(addresses) > 0 {
				addresses = addresses[1:]
			}
			if also != "" {
				addresses = append(addresses, also)
			}
			equal := k.heldExempt(t, addresses)
			if same := slices.Equal(addresses, want); equal != same {
				t.Errorf("%s: the kernel passes over %v: %t, want %t", when, addresses, equal, same)
			}
		}
	}
}

// heldExempt reports whether the kernel equals the policy with these addresses opted out, whatever is on record.
func (k *kernel) heldExempt(t *testing.T, addresses []string) bool {
	t.Helper()
	var drift []backend.Drift
	k.in(t, func(ctx context.Context) error {
		look := k.agent()
		look.records.Dir = k.records.Dir
		look.optOuts.Dir = t.TempDir()
		if len(addresses) > 0 {
			a := pod("pods", "exempt")
			for _, address := range addresses {
				a.Addresses = append(a.Addresses, netip.MustParseAddr(address))
			}
			if err := look.optOuts.Put(a); err != nil {
				return err
			}
		}
		view, err := look.Look(ctx, nodeTraffic())
		drift = view.Drift
		return err
	})
	return len(drift) == 0
}

// TestExempt: while the policy is about the node's traffic, an opt-out is in the kernel when its ADD ends and out of it when its DEL
// does, without an agent, and an agent keeps it there. An address that two have stays for the other.
func TestExempt(t *testing.T) {
	eachKind(t, func(t *testing.T, k *kernel) {
		plugin := func() *Node { return k.plugin(policy.DefaultChain) }
		off := false
		out := func(container string, addresses ...string) attachment.Attachment {
			a := pod("pods", container, addresses...)
			a.Asked.Network = &off
			return a
		}
		add := func(a attachment.Attachment) {
			t.Helper()
			k.in(t, func(ctx context.Context) error { return plugin().Attach(ctx, a) })
		}
		del := func(a attachment.Attachment) {
			t.Helper()
			k.in(t, func(ctx context.Context) error { return plugin().Detach(ctx, a.Owner) })
		}
		check := func(a attachment.Attachment) (err error) {
			k.in(t, func(ctx context.Context) error { err = plugin().Check(ctx, a); return nil })
			return err
		}
		a, b, c := out("a", "10.1.0.2"), out("b", "10.1.0.3"), out("c", "10.1.0.3")
		add(a)
		k.syncTo(t, nodeTraffic())
		k.wantExempt(t, "opted out before", "10.1.0.2")
		add(b)
		add(c)
		k.wantExempt(t, "after two ADDs", "10.1.0.2", "10.1.0.3")
		if result := k.syncTo(t, nodeTraffic()); result.Changed {
			t.Errorf("a sync changed what ADDs did: %+v", result.Repaired)
		}
		for _, a := range []attachment.Attachment{a, b, c} {
			if err := check(a); err != nil {
				t.Errorf("CHECK of %s: %v", a.ContainerID, err)
			}
		}
		del(b)
		k.wantExempt(t, "one of two owners went", "10.1.0.2", "10.1.0.3")
		del(c)
		del(c)
		k.wantExempt(t, "both went", "10.1.0.2")

		// Opted out, attached, and opted out again.
		in := a
		in.Asked = attachment.Asked{}
		add(in)
		k.wantExempt(t, "attached")
		add(a)
		k.wantExempt(t, "opted out again", "10.1.0.2")

		// The plugin finds nothing in the kernel, and the agent heals.
		k.in(t, func(ctx context.Context) error { return removeRules(ctx, k) })
		if err := check(a); err == nil {
			t.Error("CHECK passes without rules")
		}
		add(b)
		k.wantExempt(t, "an ADD on nothing", "10.1.0.2", "10.1.0.3")
		k.in(t, func(ctx context.Context) error {
			b, _, err := k.InUse()
			if err != nil {
				return err
			}
			return b.Release(ctx, k.settings(), []netip.Addr{netip.MustParseAddr("10.1.0.3")})
		})
		k.wantExempt(t, "taken out by others", "10.1.0.2")
		if err := check(b); err == nil {
			t.Error("CHECK passes without the address")
		}
		if result := k.syncTo(t, nodeTraffic()); !result.Changed {
			t.Error("the sync had nothing to do")
		}
		k.wantExempt(t, "healed", "10.1.0.2", "10.1.0.3")

		// GC, and a record that is lost.
		k.in(t, func(ctx context.Context) error { return plugin().GC(ctx, "pods", []attachment.Owner{b.Owner}, true) })
		k.wantExempt(t, "after a GC", "10.1.0.3")
		if err := os.RemoveAll(k.optOuts.Dir); err != nil {
			t.Fatal(err)
		}
		k.syncTo(t, nodeTraffic())
		k.wantExempt(t, "after a sync without records")
		add(b)

		// A sync that reads nothing, because nothing changed since the last, notices one that opted out.
		for range 2 {
			time.Sleep(2 * fresh)
			k.syncTo(t, nodeTraffic())
		}
		if err := k.optOuts.Put(pod("pods", "beside", "10.1.0.4")); err != nil {
			t.Fatal(err)
		}
		k.syncTo(t, nodeTraffic())
		k.wantExempt(t, "a record that was not there", "10.1.0.3", "10.1.0.4")
		del(pod("pods", "beside"))
		k.wantExempt(t, "its DEL", "10.1.0.3")

		// Off: the addresses go with the rules, and a DEL asks the kernel for nothing.
		k.syncTo(t, policy.Default(policy.DefaultSettings()))
		k.in(t, func(ctx context.Context) error {
			view, err := k.Look(ctx, policy.Default(policy.DefaultSettings()))
			if len(view.Drift) > 0 {
				t.Errorf("off: %v", view.Drift)
			}
			return err
		})
		del(b)
		k.wantOptedOut(t, "in the end")
	})
}

// removeRules takes everything out of the kernel and leaves the files.
func removeRules(ctx context.Context, k *kernel) error {
	b, _, err := k.InUse()
	if err != nil {
		return err
	}
	return b.RemoveAll(ctx, policy.DefaultChain)
}

// TestExemptAsTheAgentBegins: a pod opts out at the moment when an agent begins to govern the node's traffic. Whichever comes first, the
// address is in the kernel when both are done.
func TestExemptAsTheAgentBegins(t *testing.T) {
	eachKind(t, func(t *testing.T, k *kernel) {
		off := false
		a := pod("pods", "a", "10.1.0.2")
		a.Asked.Network = &off
		for round := range 10 {
			k.syncTo(t, policy.Default(policy.DefaultSettings()))
			added := make(chan error, 1)
			go func() {
				added <- k.Do(func() error {
					time.Sleep(time.Duration(round) * time.Millisecond)
					return k.plugin(policy.DefaultChain).Attach(context.Background(), a)
				})
			}()
			k.syncTo(t, nodeTraffic())
			if err := <-added; err != nil {
				t.Fatal(err)
			}
			k.wantExempt(t, "both are done", "10.1.0.2")
			k.in(t, func(ctx context.Context) error { return k.plugin(policy.DefaultChain).Detach(ctx, a.Owner) })
		}
	})
}
