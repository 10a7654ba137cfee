package node

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestNewRefusals: each refusal is told once, by whichever agent comes first, also of pods that came while none was up; a pod that comes
// again is told of again. Without refusals there is no file.
func TestNewRefusals(t *testing.T) {
	k := newKernel(t, "nft", Options{})
	want := func(when string, by *Node, want ...string) {
		t.Helper()
		fresh, err := by.NewRefusals()
		got := []string{}
		for _, a := range fresh {
			got = append(got, a.ContainerID+":"+fmt.Sprint(a.Refused))
		}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, %v, want %v", when, got, err, want)
		}
	}
	agent := func() *Node { return New(Options{StateDir: k.stateDir, DataDir: k.dataDir}) }
	first := agent()
	k.attachPod(t, "usual", "10.1.0.9", attachment.NetNS{})
	want("nothing", first)
	if _, err := os.Stat(k.refusalsPath()); err == nil {
		t.Error("a file without a refusal")
	}
	a, out := pod("pods", "a", "10.1.0.2"), pod("pods", "out", "10.1.0.3")
	a.Refused, out.Refused = []string{policy.MasqueradeAnnotation}, policy.Annotations()
	put := func(s attachment.Store, a attachment.Attachment) {
		t.Helper()
		if err := s.Put(a); err != nil {
			t.Fatal(err)
		}
	}
	put(k.records.Store, a)
	want("attached", first, "a:[ip-masq-agent/masquerade]")
	want("again", first)
	put(k.optOuts.Store, out)
	second := agent()
	want("came without an agent", second, "out:[ip-masq-agent/masquerade ip-masq-agent/source-addresses]")
	want("after a restart", agent())
	a.Refused = []string{policy.SourceAddressesAnnotation}
	put(k.records.Store, a)
	want("another one", second, "a:[ip-masq-agent/source-addresses]")
	if err := k.records.Delete(a.ID()); err != nil {
		t.Fatal(err)
	}
	want("gone", second)
	put(k.records.Store, a)
	want("back", second, "a:[ip-masq-agent/source-addresses]")
	write(t, k.refusalsPath(), "{")
	want("the file is damaged", agent(), "a:[ip-masq-agent/source-addresses]", "out:[ip-masq-agent/masquerade ip-masq-agent/source-addresses]")
	for _, id := range []attachment.ID{a.ID(), out.ID()} {
		if err := k.records.Delete(id); err != nil {
			t.Fatal(err)
		}
		if err := k.optOuts.Delete(id); err != nil {
			t.Fatal(err)
		}
	}
	want("all gone", second)
	if _, err := os.Stat(k.refusalsPath()); err == nil {
		t.Error("the file stays without a refusal")
	}
}

// TestAdoptedAnnotations: a pod that the plugin did not see is treated as an ADD would now, and what was decided once holds, whatever
// the policy says by then.
func TestAdoptedAnnotations(t *testing.T) {
	alive := netnstest.NewSpace(t, "alive")
	in := attachment.StatNetNS(alive.Path)
	one := func(container, address string, network *bool, annotations map[string]string) attachment.Attachment {
		a := pod("pods", container, address)
		a.NetNS, a.Asked = in, attachment.Asked{Annotations: annotations, Network: network}
		return a
	}
	off := false
	k := newKernel(t, "nft", Options{Runtime: listed{
		one("usual", "10.1.0.2", nil, nil),
		one("off", "10.1.0.3", &off, nil),
		one("out", "10.1.0.4", nil, map[string]string{policy.MasqueradeAnnotation: "false"}),
		one("over", "10.1.0.5", &off, map[string]string{policy.MasqueradeAnnotation: "true"}),
		one("bad", "10.1.0.6", nil, map[string]string{policy.MasqueradeAnnotation: "maybe"}),
		one("chosen", "10.1.0.7", nil, map[string]string{policy.SourceAddressesAnnotation: "192.0.2.0/28"}),
	}})
	sync := func(when string, allowed policy.PodAnnotations, want string) {
		t.Helper()
		settings := policy.DefaultSettings()
		settings.PodAnnotations = allowed
		k.in(t, func(ctx context.Context) error {
			_, err := k.Sync(ctx, policy.Default(settings))
			return err
		})
		got := ""
		for _, store := range []attachment.Store{k.records.Store, k.optOuts.Store} {
			all, err := store.List()
			if err != nil {
				t.Fatal(err)
			}
			names := map[string]attachment.Attachment{}
			for _, a := range all {
				names[a.ContainerID] = a
			}
			for _, name := range []string{"usual", "off", "out", "over", "bad", "chosen"} {
				if a, there := names[name]; there {
					got += fmt.Sprint(name, len(a.Refused), len(a.SourceAddresses), " ")
				}
			}
			got += "| "
		}
		if got != want {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
		uncovered, err := k.Uncovered()
		if len(uncovered) > 0 || err != nil {
			t.Errorf("%s: uncovered: %v, %v", when, uncovered, err)
		}
	}
	const allowed = "usual0 0 over0 0 bad0 0 chosen1 0 | off0 0 out0 0 | "
	sync("allowed", policy.AllowAnnotations, allowed)
	sync("allowed before", policy.DenyAnnotations, allowed)
	k.in(t, k.Cleanup)
	const denied = "usual0 0 out1 0 bad1 0 chosen1 0 | off0 0 over1 0 | "
	sync("denied", policy.DenyAnnotations, denied)
	sync("denied before", policy.AllowAnnotations, denied)
	k.in(t, k.Cleanup)
	sync("by their names", policy.AllowedAnnotations(policy.Annotations()), "usual0 0 over0 0 bad0 0 chosen0 1 | off0 0 out0 0 | ")
}
