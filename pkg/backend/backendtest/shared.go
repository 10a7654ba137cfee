package backendtest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// ownersOf are several attachments with the addresses of one pod, such as two networks with overlapping ranges.
func ownersOf(p *netnstest.Pod, n int) []attachment.Attachment {
	owners := []attachment.Attachment{attachmentOf(p)}
	for len(owners) < n {
		owners = append(owners, heir(owners[len(owners)-1]))
	}
	return owners
}

// sharedAddress detaches in the order of the attachments and in the reverse, with and without what the record listed.
func sharedAddress(f *fixture) {
	f.withNode()
	pod := f.node.AddPod(f.T, "pod")
	f.sync(f.state(f.policy()))
	for _, reverse := range []bool{false, true} {
		for _, known := range []bool{true, false} {
			owners := ownersOf(pod, 3)
			for _, a := range owners {
				f.must(f.attach(a), "Attach")
			}
			if reverse {
				slices.Reverse(owners)
			}
			f.goOneByOne(pod, owners, known)
		}
	}
}

// goOneByOne detaches; the pod is masqueraded as long as one of its owners is on record.
func (f *fixture) goOneByOne(pod *netnstest.Pod, owners []attachment.Attachment, known bool) {
	f.Helper()
	for i, a := range owners {
		f.seen(pod, f.node.Internet.IPv4, nodeInternet4)
		for _, other := range owners[i:] {
			f.must(f.verify(other), "Verify")
		}
		var listed []ruleset.Pod
		if known {
			listed = ruleset.Pods(a)
		}
		f.must(f.detach(a, listed...), "Detach")
	}
	f.seen(pod, f.node.Internet.IPv4, own(pod, f.node.Internet.IPv4))
	if pods := f.observe().Pods(); len(pods) > 0 {
		f.Errorf("left: %v", pods)
	}
}

// sharedAfterFlush is a node without an agent: the rules are flushed and made again out of the records, one of which is a dead
// pod's, whose DEL comes late.
func sharedAfterFlush(f *fixture) {
	f.withNode()
	pod := f.node.AddPod(f.T, "pod")
	for _, deadFirst := range []bool{true, false} {
		owners := ownersOf(pod, 2)
		if (owners[0].ID() < owners[1].ID()) != deadFirst {
			slices.Reverse(owners)
		}
		f.sync(f.state(f.policy()))
		for _, a := range owners {
			f.must(f.attach(a), "Attach")
		}
		f.remove(f.s.Families()...)
		f.settle(f.state(f.policy(), owners...))
		f.goOneByOne(pod, owners, true)
	}
}

func sharedInParallel(f *fixture) {
	f.sync(f.state(f.policy()))
	stays := map[attachment.ID]bool{}
	var failures []error
	for i := range crowd {
		owners := []attachment.Attachment{f.pod(i), heir(f.pod(i)), heir(heir(f.pod(i)))}
		for _, a := range owners {
			f.must(f.attach(a), "Attach")
		}
		if i%2 == 0 {
			stays[owners[2].ID()] = true
			owners = owners[:2]
		}
		errs := make([]error, len(owners))
		var wg sync.WaitGroup
		for j, a := range owners {
			wg.Go(func() { errs[j] = f.detach(a, ruleset.Pods(a)...) })
		}
		wg.Wait()
		failures = append(failures, errs...)
	}
	f.must(errors.Join(failures...), "Detach at once")
	pods := f.observe().Pods()
	if want := len(stays) * len(f.s.Families()); len(pods) != want {
		f.Errorf("%d pods, want %d", len(pods), want)
	}
	for _, pod := range pods {
		if !stays[pod.Owner] {
			f.Errorf("left of an attachment that went: %v", pod)
		}
	}
}

// removeAllFindsChains: whoever lost the record of what was chosen finds the chains by what leads to them.
func removeAllFindsChains(f *fixture) {
	f.s.Chain = "SOME-OTHER-NAME"
	both := []policy.Family{policy.IPv4, policy.IPv6}
	for _, sources := range []policy.Sources{policy.SourcesPods, policy.SourcesAll} {
		f.s.Sources = sources
		f.sync(f.state(f.policy(), f.pod(1)))
		for _, family := range both {
			var chains []string
			f.must(f.in(func(ctx context.Context) (err error) {
				chains, err = f.backend.Chains(ctx, family)
				return err
			}), "Chains")
			var want []string
			if slices.Contains(f.s.Families(), family) {
				want = []string{f.s.Chain}
			}
			if !slices.Equal(chains, want) {
				f.Errorf("%s: found the chains %q, want %q", family, chains, want)
			}
		}
		for range 2 {
			f.must(f.in(func(ctx context.Context) error { return f.backend.RemoveAll(ctx) }), "RemoveAll")
			if after := f.dump(); f.ours() || strings.Contains(after, f.s.Chain) {
				f.Errorf("RemoveAll left\n%s", after)
			}
		}
		for _, family := range f.s.Families() {
			if state := f.chain(family); state != backend.ChainMissing {
				f.Errorf("Chain says %s after RemoveAll", state)
			}
		}
	}
}
