package nftables

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// TestLoadsManyPrefixes is about the sizes that netlink's lengths and buffers have.
func TestLoadsManyPrefixes(t *testing.T) {
	netnstest.Require(t)
	n := newNode(t)
	want := benchState(100_000)
	n.sync(want)
	remembered = memory{} // read the kernel, not what we know
	n.sync(want)
	want.Tables[0].Destinations = want.Tables[0].Destinations[:50_000]
	n.sync(want)
}

// TestResumesAfterKill stops between the two transactions of an installation.
func TestResumesAfterKill(t *testing.T) {
	netnstest.Require(t, "nft")
	n := newNode(t)
	want := goldenStates["dual-stack"]()
	err := n.Do(func() error {
		return session(context.Background(), func(c *nfnl.Conn) error {
			return c.Commit(plans(aim(want, &reading{}, InPlace, countLimit), &reading{}).fill)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	err = n.Do(func() error {
		return New().Attach(context.Background(), want.Only(ruleset.Pods(goldenPod("10.244.0.9"))))
	})
	if !errors.Is(err, backend.ErrIncomplete) {
		t.Errorf("Attach: %v, want ErrIncomplete", err)
	}
	n.sync(want)
	n.holds(golden(t, "dual-stack"))
}

// TestGeneration: equal as long as nobody writes, and different after anybody did.
func TestGeneration(t *testing.T) {
	netnstest.Require(t, "nft")
	n := newNode(t)
	generation := func() (g uint32) {
		_ = n.Do(func() (err error) { g, err = New().Generation(context.Background()); return err })
		return g
	}
	n.sync(goldenStates["default"]())
	first := generation()
	n.sync(goldenStates["default"]())
	if _, err := n.observe(); err != nil || generation() != first {
		t.Errorf("generation %d became %d although nobody wrote (%v)", first, generation(), err)
	}
	n.Run(t, "nft", "add table ip foreign")
	if generation() == first {
		t.Error("the same generation after somebody wrote")
	}
}

// TestGuardRefuses: what a deletion was planned from must still be true.
func TestGuardRefuses(t *testing.T) {
	netnstest.Require(t, "nft")
	n := newNode(t)
	n.sync(goldenStates["default"]())
	err := n.Do(func() error {
		return session(context.Background(), func(c *nfnl.Conn) error {
			generation, err := c.Generation()
			if err != nil {
				return err
			}
			n.Run(t, "nft", "add table ip foreign")
			b := nfnl.NewGuardedBatch(generation)
			b.DeleteTable(tableName)
			return c.Commit(b)
		})
	})
	if !errors.Is(err, unix.ERESTART) || !errors.Is(err, backend.ErrBusy) {
		t.Errorf("%v, want ERESTART and ErrBusy", err)
	}
	n.holds(golden(t, "default"))
}

// TestWithoutPrivilege asks as somebody who may not.
func TestWithoutPrivilege(t *testing.T) {
	netnstest.Require(t)
	n := newNode(t)
	n.sync(goldenStates["default"]())
	one := goldenStates["default"]().Only(ruleset.Pods(goldenPod("10.244.0.9")))
	ctx, b := context.Background(), New()
	for name, call := range map[string]func() error{
		"Probe":   func() error { _, err := b.Probe(ctx, policy.IPv4); return err },
		"Observe": func() error { _, err := b.Observe(ctx, one.Settings, policy.IPv4); return err },
		"Attach":  func() error { return b.Attach(ctx, one) },
		"Detach":  func() error { return b.Detach(ctx, one.Settings, families, goldenPod("10.244.0.5").ID(), nil, nil) },
		"Verify":  func() error { return b.Verify(ctx, one) },
	} {
		err := n.Do(func() error { return unprivileged(call) })
		if !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", name, err)
		}
	}
}

// unprivileged makes a call on a thread without capabilities, in the same network namespace; the thread ends with it.
func unprivileged(call func() error) error {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(fd, unix.CLONE_NEWNET)
		none := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		result <- errors.Join(err, unix.Capset(&none, &data[0]), call())
	}()
	return <-result
}
