package nftables

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// cpuTime is what this process has used, in user space and in the kernel.
func cpuTime() time.Duration {
	var usage unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// benchState is a node with n prefixes and 1,000 pods.
func benchState(n int) ruleset.State {
	p := policy.Policy{Settings: policy.DefaultSettings()}
	for _, d := range randomDestinations(n) {
		p.NonMasquerade = append(p.NonMasquerade, d.Prefix)
	}
	var attachments []attachment.Attachment
	for i := range 1000 {
		attachments = append(attachments, benchPod(i))
	}
	return ruleset.Build(p, attachments, ruleset.Node{})
}

func benchPod(i int) attachment.Attachment {
	return attachment.Attachment{
		Owner:     attachment.Owner{Network: "net", ContainerID: fmt.Sprintf("%064d", i), IfName: "eth0"},
		Addresses: addresses(fmt.Sprintf("10.244.%d.%d", i>>8, i&0xff)),
	}
}

// BenchmarkBackend measures the CPU time of every verb; the wall time of those that delete includes an RCU grace period.
func BenchmarkBackend(b *testing.B) {
	for _, n := range []int{4, 64, 1000, 10_000} {
		want := benchState(n)
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) { benchVerbs(b, want) })
	}
}

func benchVerbs(b *testing.B, want ruleset.State) {
	ctx, be, s := context.Background(), New(), want.Settings
	changed := want
	changed.Tables = []ruleset.Table{want.Tables[0]}
	changed.Tables[0].Destinations = want.Tables[0].Destinations[1:]
	one := want.Only(ruleset.Pods(benchPod(5000)))
	id := benchPod(5000).ID()
	space := netnstest.NewSpace(b, "bench")
	verb := func(name string, prepare, run func() error) {
		b.Run(name, func(b *testing.B) {
			var used time.Duration
			for range b.N {
				err := space.Do(func() error {
					if err := prepare(); err != nil {
						return err
					}
					before := cpuTime()
					err := run()
					used += cpuTime() - before
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
	nothing := func() error { return nil }
	sync := func(want ruleset.State) func() error {
		return func() error {
			got, err := be.Observe(ctx, s, policy.IPv4)
			if err == nil {
				_, err = be.Apply(ctx, got, want)
			}
			return err
		}
	}
	verb("load", func() error { return be.Remove(ctx, s, policy.IPv4) }, func() error {
		_, err := be.Apply(ctx, backend.Observed{}, want)
		return err
	})
	verb("one prefix changed", sync(want), sync(changed))
	verb("nothing changed", sync(want), sync(want))
	verb("generation", nothing, func() error { _, err := be.Generation(ctx); return err })
	verb("attach", func() error { return be.Detach(ctx, s, s.Families(), id, nil, nil) }, func() error { return be.Attach(ctx, one) })
	verb("detach", func() error { _ = be.Attach(ctx, one); return nil }, func() error {
		return be.Detach(ctx, s, s.Families(), id, one.Tables[0].Pods, nil)
	})
	verb("verify", func() error { _ = be.Attach(ctx, one); return nil }, func() error { return be.Verify(ctx, one) })
}
