package node

import (
	"context"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

func (k *kernel) wantOptedOut(t *testing.T, when string, want ...string) {
	t.Helper()
	got, err := k.OptedOut()
	var names []string
	for _, a := range got {
		names = append(names, a.Pod.String())
	}
	if err != nil || len(names) != len(want) || len(want) > 0 && names[0] != want[0] {
		t.Errorf("%s: opted out %q, %v, want %q", when, names, err, want)
	}
}

// TestOptOuts: a pod that opted out is listed until it goes, in every way that it can go, and has neither record nor rule.
func TestOptOuts(t *testing.T) {
	k := newKernel(t, "nft", Options{})
	a := pod("pods", "out", "10.1.0.3")
	a.Pod = attachment.Pod{Namespace: "default", Name: "out"}
	optOut := func() {
		k.in(t, func(ctx context.Context) error { return k.cniPlugin().optOut(ctx, a) })
		k.wantOptedOut(t, "after the ADD", "default/out")
	}
	optOut()
	if got := k.mustSync(t); got.Pods != 0 {
		t.Errorf("the pod has a rule: %+v", got)
	}
	k.wantOptedOut(t, "after a sync", "default/out")
	for name, goes := range map[string]func(ctx context.Context) error{
		"DEL":       func(ctx context.Context) error { return k.cniPlugin().Detach(ctx, a.Owner) },
		"GC":        func(ctx context.Context) error { return k.cniPlugin().GC(ctx, "pods", nil, true) },
		"opting in": func(ctx context.Context) error { return k.cniPlugin().Attach(ctx, a) },
		"cleanup":   k.Cleanup,
	} {
		optOut()
		k.in(t, goes)
		k.wantOptedOut(t, "after "+name)
	}
	a.NetNS = attachment.NetNS{Path: "/run/no-such-namespace"}
	k.in(t, func(ctx context.Context) error { return k.cniPlugin().optOut(ctx, a) })
	k.wantOptedOut(t, "whose namespace is gone")
	k.mustSync(t)
	if all, err := k.optOuts.List(); len(all) != 0 || err != nil {
		t.Errorf("after a sync %v, %v are on record", all, err)
	}
}
