package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/cnicache"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// cache is a runtime's result cache on disk with one network that names the plugin.
type cache struct{ cnicache.Cache }

func newCache(t *testing.T) cache {
	t.Helper()
	c := cache{cnicache.Cache{Dir: filepath.Join(t.TempDir(), "cache"), ConfDir: filepath.Join(t.TempDir(), "net.d")}}
	write(t, filepath.Join(c.ConfDir, "1.conflist"), `{"name":"pods","cniVersion":"1.0.0","plugins":[{"type":"bridge"},{"type":"ip-masq"}]}`)
	if err := os.MkdirAll(filepath.Join(c.Dir, "results"), 0o700); err != nil {
		t.Fatal(err)
	}
	return c
}

// name makes the cache name an attachment, as libcni does while its ADD runs.
func (c cache) name(t *testing.T, a attachment.Attachment, netns string) {
	t.Helper()
	write(t, cnicache.File(c.Dir, a.Owner), fmt.Sprintf(
		`{"kind":"cniCacheV1","containerId":%q,"ifName":%q,"networkName":%q,"netns":%q,"result":{"cniVersion":"1.0.0","ips":[{"address":"%s/24"}]}}`,
		a.ContainerID, a.IfName, a.Network, netns, a.Addresses[0]))
}

func (c cache) forget(t *testing.T, a attachment.Attachment) {
	t.Helper()
	remove(t, cnicache.File(c.Dir, a.Owner))
}

func (k *kernel) marks(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(k.stateDir, deletedDir))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func (k *kernel) wantMarks(t *testing.T, when string, want int) {
	t.Helper()
	if got := k.marks(t); len(got) != want {
		t.Errorf("%s: %d marks, want %d", when, len(got), want)
	}
}

// cniPlugin is the plugin as a runtime starts it, a new process for each verb.
func (k *kernel) cniPlugin() *Node {
	return k.party(func(o *Options) { o.CacheFile = cnicache.File })
}

// TestNoMarksWithoutAnAgent: nobody reads the cache, so nothing has to be protected from being adopted.
func TestNoMarksWithoutAnAgent(t *testing.T) {
	k, c := newKernel(t, "nft", Options{}), newCache(t)
	a := pod("pods", "a", "10.1.0.2")
	c.name(t, a, "")
	for range 3 {
		k.in(t, func(ctx context.Context) error { return k.cniPlugin().Attach(ctx, a) })
		k.in(t, func(ctx context.Context) error { return k.cniPlugin().Detach(ctx, a.Owner) })
	}
	k.wantMarks(t, "after DELs", 0)
}

// TestMarksProtectAndGo: with an agent, a DEL leaves a mark while the cache names the pod, which is not adopted again; every way
// that can notice that the cache has forgotten it removes the mark.
func TestMarksProtectAndGo(t *testing.T) {
	for name, prune := range map[string]func(ctx context.Context, k *kernel) error{
		"DEL of another": func(ctx context.Context, k *kernel) error { return k.cniPlugin().Detach(ctx, pod("pods", "x").Owner) },
		"GC":             func(ctx context.Context, k *kernel) error { return k.cniPlugin().GC(ctx, "pods", nil, true) },
		"a sync": func(ctx context.Context, k *kernel) error {
			_, err := k.Sync(ctx, policy.Default(policy.DefaultSettings()))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCache(t)
			k := newKernel(t, "nft", Options{Runtime: c.Cache})
			alive := netnstest.NewSpace(t, "alive")
			k.mustSync(t)
			a := pod("pods", "a", "10.1.0.2")
			c.name(t, a, alive.Path)
			k.in(t, func(ctx context.Context) error { return k.cniPlugin().Attach(ctx, a) })
			k.in(t, func(ctx context.Context) error { return k.cniPlugin().Detach(ctx, a.Owner) })
			k.wantMarks(t, "right after the DEL", 1)
			if got := k.mustSync(t); got.Adopted != 0 || got.Pods != 0 {
				t.Errorf("the pod was adopted again: %+v", got)
			}
			k.wantMarks(t, "while the cache names the pod", 1)
			c.forget(t, a)
			k.in(t, func(ctx context.Context) error { return prune(ctx, k) })
			k.wantMarks(t, "after "+name, 0)
		})
	}
}

// TestNoMarkThatProtectsNothing: repeated DELs of ids that nobody knows, and pods that opt out.
func TestNoMarkThatProtectsNothing(t *testing.T) {
	c := newCache(t)
	k := newKernel(t, "nft", Options{Runtime: c.Cache})
	k.mustSync(t)
	for range 3 {
		k.in(t, func(ctx context.Context) error { return k.cniPlugin().Detach(ctx, pod("pods", "unknown").Owner) })
	}
	out := pod("pods", "out", "10.1.0.3")
	c.name(t, out, "")
	k.in(t, func(ctx context.Context) error { return k.cniPlugin().optOut(ctx, out) })
	k.wantMarks(t, "after DELs of unknown ids and an ADD that opted out", 0)
}

// TestMarksOfAQuietNode: nothing changes any more, and a sync that reads nothing removes the marks all the same.
func TestMarksOfAQuietNode(t *testing.T) {
	c := newCache(t)
	k := newKernel(t, "nft", Options{Runtime: c.Cache})
	k.mustSync(t)
	k.mustSync(t)
	for i := range 12 {
		write(t, k.deletedPath(pod("pods", fmt.Sprint("old", i)).ID()), "")
	}
	k.mustSync(t)
	k.wantMarks(t, "after a sync", 0)
}

// TestTwoOwnersThatGoAtOnce: net1/a and net2/b have one address, and both DELs run at the same time, without an agent. Nothing is
// left, whichever comes first; while one is attached its address is covered.
func TestTwoOwnersThatGoAtOnce(t *testing.T) {
	eachKind(t, func(t *testing.T, k *kernel) {
		a, b := pod("net1", "a", "10.1.0.2"), pod("net2", "b", "10.1.0.2")
		for round := range 20 {
			for _, a := range []attachment.Attachment{a, b} {
				k.in(t, func(ctx context.Context) error { return k.plugin(policy.DefaultChain).Attach(ctx, a) })
			}
			if round == 0 {
				k.in(t, func(ctx context.Context) error { return k.plugin(policy.DefaultChain).Detach(ctx, b.Owner) })
				k.wantRules(t, "10.1.0.2")
			}
			done := make(chan error, 2)
			for _, a := range []attachment.Attachment{a, b} {
				go func() {
					done <- k.Do(func() error { return k.plugin(policy.DefaultChain).Detach(context.Background(), a.Owner) })
				}()
			}
			if err := errors.Join(<-done, <-done); err != nil {
				t.Fatal(err)
			}
			if n := len(recordsOf(t, k)); n != 0 {
				t.Fatalf("%d records", n)
			}
			k.wantRules(t, "!10.1.0.2")
		}
	})
}

// TestFilesOfTheFirstRelease name no version and no chain, and go on being understood.
func TestFilesOfTheFirstRelease(t *testing.T) {
	eachKind(t, func(t *testing.T, k *kernel) {
		a := pod("pods", "a", "10.1.0.2")
		k.in(t, func(ctx context.Context) error { return k.plugin("OLD").Attach(ctx, a) })
		d, _ := k.Decision()
		write(t, filepath.Join(k.records.Dir, string(a.ID())+".json"), `{"network":"pods","containerID":"a","ifName":"eth0","addresses":["10.1.0.2"]}`)
		write(t, k.decisionPath(), fmt.Sprintf(`{"bootID":%q,"backend":%q,"reason":"it stood there","explicit":true,"features":{"randomFully":true}}`, bootID(), d.Kind))
		write(t, k.policyPath(), `{"settings":{"chain":"OLD","sources":"pods","ipv6":false,"randomFully":true},"nonMasqueradeCIDRs":["10.0.0.0/8"],"masqLinkLocal":false,"masqLinkLocalIPv6":false}`)
		b := pod("pods", "b", "10.1.0.3")
		k.in(t, func(ctx context.Context) error { return k.plugin(policy.DefaultChain).Attach(ctx, b) })
		k.wantRules(t, "10.1.0.2", "10.1.0.3", "OLD", "!IP-MASQ-AGENT-PODS")
		k.mustSync(t)
		k.wantRules(t, "10.1.0.2", "10.1.0.3", "!OLD", "IP-MASQ-AGENT")
		if n := len(recordsOf(t, k)); n != 2 {
			t.Errorf("%d records", n)
		}
	})
}

// TestFilesOfANewerRelease are never read as something else, and the reason is one sentence in the log.
func TestFilesOfANewerRelease(t *testing.T) {
	k := newKernel(t, "nft", Options{})
	write(t, k.decisionPath(), fmt.Sprintf(`{"version":2,"bootID":%q,"backend":"iptables-legacy","chain":"X"}`, bootID()))
	write(t, k.policyPath(), `{"version":2,"settings":{"chain":"X","sources":"pods"},"nonMasqueradeCIDRs":[]}`)
	k.in(t, func(ctx context.Context) error {
		return k.plugin(policy.DefaultChain).Attach(ctx, pod("pods", "a", "10.1.0.2"))
	})
	k.wantRules(t, "IP-MASQ-AGENT", "10.1.0.2", "10.0.0.0/8", "!X-PODS")
	if d, ok := k.Decision(); !ok || d.Chain != policy.DefaultChain || d.Version != attachment.FormatVersion {
		t.Errorf("recorded %+v", d)
	}
	if _, err := k.LoadPolicy(); err == nil || !contains(err.Error(), k.policyPath(), "version 2") {
		t.Errorf("the policy: %v", err)
	}
	if !contains(k.logged.String(), k.decisionPath(), "version 2", "level=WARN") {
		t.Errorf("logged\n%s", k.logged.String())
	}
}

// TestAnHeirWhoseDelRanMeanwhile is the one order of two DELs at once that leaves the address with its heir: a's DEL found the
// address with b and removed a's record, after b's DEL had found a on record and left it the address.
func TestAnHeirWhoseDelRanMeanwhile(t *testing.T) {
	k := newKernel(t, "nft", Options{Choice: registry.NFTables})
	a, b := pod("net1", "a", "10.1.0.2"), pod("net2", "b", "10.1.0.2")
	for _, a := range []attachment.Attachment{a, b} {
		k.in(t, func(ctx context.Context) error { return k.plugin(policy.DefaultChain).Attach(ctx, a) })
	}
	dels := k.plugin(policy.DefaultChain)
	var heirs []attachment.ID
	k.in(t, func(ctx context.Context) (err error) {
		heirs, err = dels.detach(ctx, dels.settings(), b.ID(), &b)
		return err
	})
	k.wantRules(t, "10.1.0.2")
	if err := k.records.Delete(a.ID()); err != nil {
		t.Fatal(err)
	}
	k.in(t, func(ctx context.Context) error { return dels.releaseHeirs(ctx, heirs) })
	k.wantRules(t, "!10.1.0.2")
}
