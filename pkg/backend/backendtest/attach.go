package backendtest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

func attachNeedsRest(f *fixture) {
	incomplete := func(what string) {
		f.Helper()
		if err := f.attach(f.pod(1)); !errors.Is(err, backend.ErrIncomplete) {
			f.Errorf("Attach %s: %v, want ErrIncomplete", what, err)
		}
	}
	incomplete("on nothing")
	f.sync(f.state(f.policy()))
	f.flush(f.s.Chain)
	incomplete("to a flushed chain")
	f.sync(f.state(f.policy()))
	f.flushRoot()
	incomplete("without the root rule")
	f.sync(f.state(f.policy(), f.pod(1)))
	f.must(f.verify(f.pod(1)), "Verify after Apply mended it")
}

func attachVerifyDetach(f *fixture) {
	f.sync(f.state(f.policy()))
	bare := f.dump()
	a := f.pod(1)
	for _, known := range [][]ruleset.Pod{nil, ruleset.Pods(a), ruleset.Pods(f.pod(2)), ruleset.Pods(a)[:1]} {
		f.must(f.attach(a), "Attach")
		f.must(f.verify(a), "Verify")
		f.must(f.detach(a, known...), "Detach")
		var missing *backend.Missing
		if err := f.verify(a); !errors.As(err, &missing) || missing.Part != backend.PartPod {
			f.Errorf("Verify after Detach with %v: %v, want a missing pod rule", known, err)
		}
		if known == nil || len(known) == len(a.Addresses) {
			if after := f.dump(); after != bare {
				f.Errorf("Detach with %v left\n%s\ninstead of\n%s", known, after, bare)
			}
		}
		f.sync(f.state(f.policy()))
	}
}

func attachTwice(f *fixture) {
	f.sync(f.state(f.policy()))
	f.must(f.attach(f.pod(1)), "Attach")
	f.must(f.attach(f.pod(1)), "Attach again")
	if pods := f.observe().Pods(); len(pods) != len(f.s.Families()) {
		f.Errorf("after a second Attach: %v", pods)
	}
	f.settle(f.state(f.policy(), f.pod(1)))
	f.must(f.detach(f.pod(1)), "Detach")
	if pods := f.observe().Pods(); len(pods) > 0 {
		f.Errorf("left: %v", pods)
	}
}

// attachHandsOver gives an address to a new owner before the former owner's Detach.
func attachHandsOver(f *fixture) {
	former := f.pod(1)
	next := heir(former)
	for _, known := range [][]ruleset.Pod{nil, ruleset.Pods(former)} {
		f.sync(f.state(f.policy()))
		f.must(f.attach(former), "Attach of the former owner")
		f.must(f.attach(next), "Attach of the next owner")
		f.must(f.detach(former, known...), "Detach of the former owner")
		f.must(f.verify(next), "Verify of the next owner")
		for _, pod := range f.observe().Pods() {
			if pod.Owner != next.ID() {
				f.Errorf("%v: want owner %s", pod, next.ID())
			}
		}
		f.must(f.detach(former, known...), "second Detach of the former owner")
		f.must(f.verify(next), "Verify of the next owner")
		f.must(f.detach(next), "Detach of the next owner")
		if pods := f.observe().Pods(); len(pods) > 0 {
			f.Errorf("left: %v", pods)
		}
	}
}

func detachNothing(f *fixture) {
	a := f.pod(1)
	gone := func(where string) {
		f.Helper()
		f.must(f.detach(a), "Detach "+where)
		f.must(f.detach(a, ruleset.Pods(a)...), "Detach with a record "+where)
	}
	gone("where nothing is")
	if f.ours() {
		f.Errorf("Detach made\n%s", f.dump())
	}
	f.sync(f.state(f.policy(), f.pod(2)))
	before := f.dump()
	gone("of an unknown owner")
	if after := f.dump(); after != before {
		f.Errorf("Detach changed\n%s\ninto\n%s", before, after)
	}
	f.must(f.attach(a), "Attach")
	gone("twice")
	f.must(f.verify(f.pod(2)), "Verify of the other pod")
}

// crowd is how many plugins run at once.
var crowd = netnstest.Crowd(50)

// all makes a call for each pod of a crowd at the same time.
func (f *fixture) all(doing string, call func(a attachment.Attachment) error) {
	f.Helper()
	failures := make([]error, crowd)
	var wg sync.WaitGroup
	for i := range crowd {
		wg.Go(func() { failures[i] = call(f.pod(i)) })
	}
	wg.Wait()
	f.must(errors.Join(failures...), doing)
}

func parallel(f *fixture) {
	f.sync(f.state(f.policy()))
	f.all("at once, Attach", f.attach)
	if pods := f.observe().Pods(); len(pods) != crowd*len(f.s.Families()) {
		f.Errorf("%d pods after %d Attach", len(pods), crowd)
	}
	f.all("at once, hand-over, then Detach", func(a attachment.Attachment) error {
		if err := f.attach(heir(a)); err != nil {
			return fmt.Errorf("attach of the next owner: %w", err)
		}
		return f.detach(a, ruleset.Pods(a)...)
	})
	heirs := map[attachment.ID]bool{}
	for i := range crowd {
		heirs[heir(f.pod(i)).ID()] = true
	}
	pods := f.observe().Pods()
	if len(pods) != crowd*len(f.s.Families()) {
		f.Errorf("%d pods after %d hand-overs", len(pods), crowd)
	}
	for _, pod := range pods {
		if !heirs[pod.Owner] {
			f.Errorf("left of a former owner: %v", pod)
		}
	}
	f.all("at once, Detach", func(a attachment.Attachment) error { return f.detach(heir(a), ruleset.Pods(heir(a))...) })
	if pods := f.observe().Pods(); len(pods) != 0 {
		f.Errorf("left: %v", pods)
	}
}

func parallelUnrecorded(f *fixture) {
	if f.backend.Kind() == backend.IPTablesNFT {
		f.Skip("iptables-nft 1.8.9 lists a chain in several reads and misses rules while others are deleted")
	}
	f.sync(f.state(f.policy()))
	f.all("at once, Attach", f.attach)
	f.all("at once, Detach without a record", func(a attachment.Attachment) error { return f.detach(a) })
	if pods := f.observe().Pods(); len(pods) != 0 {
		f.Errorf("left: %v", pods)
	}
}

func observeTellsPods(f *fixture) {
	if got := f.observe(); len(got.Tables) != len(f.s.Families()) || got.Tables[0].Chain != backend.ChainMissing {
		f.Errorf("of nothing: %+v", got.Tables)
	}
	odd := attachment.Attachment{
		Owner:     attachment.Owner{Network: `a "net" with; odd\ $names`, ContainerID: "é\n#", IfName: "-j"},
		Addresses: f.pod(9).Addresses,
	}
	want := map[ruleset.Pod]bool{}
	for _, pod := range append(ruleset.Pods(f.pod(1), f.pod(2)), ruleset.Pods(odd)...) {
		want[pod] = true
	}
	f.settle(f.state(f.policy(), f.pod(1), f.pod(2), odd))
	for _, pod := range f.observe().Pods() {
		if !want[pod] {
			f.Errorf("%+v is not one that was attached", pod)
		}
		delete(want, pod)
	}
	if len(want) > 0 {
		f.Errorf("not reported: %v", want)
	}
}

func verifyNamesMissing(f *fixture) {
	a := f.pod(1)
	for _, c := range []struct {
		part    backend.Part
		breakIt func()
	}{
		{"", func() {}},
		{backend.PartRoot, f.flushRoot},
		{backend.PartChain, func() { f.flush(f.s.Chain) }},
		{backend.PartPod, func() { f.must(f.detach(a), "Detach") }},
		{backend.PartRoot, func() { f.remove(f.s.Families()...) }},
	} {
		f.sync(f.state(f.policy(), a))
		c.breakIt()
		before := f.dump()
		var missing *backend.Missing
		err := f.verify(a)
		switch {
		case c.part == "" && err == nil:
		case !errors.As(err, &missing) || missing.Part != c.part || missing.Detail == "":
			f.Errorf("Verify: %v, want a missing %s", err, c.part)
		}
		if after := f.dump(); after != before {
			f.Errorf("Verify changed\n%s\ninto\n%s", before, after)
		}
	}
}

func removeLeavesNothing(f *fixture) {
	both := []policy.Family{policy.IPv4, policy.IPv6}
	f.remove(both...)
	if f.ours() {
		f.Errorf("Remove made\n%s", f.dump())
	}
	for _, sources := range []policy.Sources{policy.SourcesPods, policy.SourcesAll} {
		f.s.Sources = sources
		f.sync(f.state(f.policy(), f.pod(1)))
		f.remove(both...)
		f.remove(both...)
		if f.ours() {
			f.Errorf("Remove left\n%s", f.dump())
		}
	}
}

func foreignUntouched(f *fixture) {
	f.addForeign()
	before := f.foreign()
	same := func(after string) {
		f.Helper()
		if now := f.foreign(); now != before {
			f.Errorf("%s changed\n%s\ninto\n%s", after, before, now)
		}
	}
	probeOnly(f)
	same("Probe")
	f.settle(f.state(f.policy(), f.pod(1)))
	same("Apply")
	f.must(f.attach(f.pod(2)), "Attach")
	f.must(f.detach(f.pod(1)), "Detach")
	same("Attach and Detach")
	f.s.Chain = "ANOTHER-IP-MASQ"
	f.settle(f.state(f.policy(), f.pod(2)))
	same("another chain")
	f.remove(f.s.Families()...)
	f.s.Chain = policy.DefaultChain
	f.remove(f.s.Families()...)
	same("Remove")
}
