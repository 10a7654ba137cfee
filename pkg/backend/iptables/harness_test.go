package iptables_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

var kinds = []backend.Kind{backend.IPTablesNFT, backend.IPTablesLegacy}

// kernel is a backend in a network namespace of its own, with both families on.
type kernel struct {
	*testing.T
	*netnstest.Space
	b *iptables.Backend
	s policy.Settings
}

func newKernel(t *testing.T, kind backend.Kind) *kernel {
	t.Helper()
	netnstest.Require(t, "nft", "iptables-nft", "iptables-legacy", "sh")
	t.Setenv("XTABLES_LOCKFILE", t.TempDir()+"/xtables.lock")
	s := policy.DefaultSettings()
	s.IPv6 = true
	return &kernel{t, netnstest.NewSpace(t, "iptables"), iptables.New(kind, ""), s}
}

func (k *kernel) in(call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), netnstest.Limit(20*time.Second))
	defer cancel()
	return k.Do(func() error { return call(ctx) })
}

func (k *kernel) must(err error, doing string) {
	k.Helper()
	if err != nil {
		k.Fatalf("%s: %v", doing, err)
	}
}

// sh runs a script in which $T is iptables of the variant and $T6 is ip6tables.
func (k *kernel) sh(script string) string {
	k.Helper()
	suffix := strings.TrimPrefix(string(k.b.Kind()), "iptables")
	return k.Space.Run(k.T, "sh", "-ec", fmt.Sprintf("T='iptables%[1]s -w' T6='ip6tables%[1]s -w' S=iptables%[1]s-save S6=ip6tables%[1]s-save\n%[2]s", suffix, script))
}

// rules prints table nat of both families.
func (k *kernel) rules() string {
	k.Helper()
	if k.b.Kind() == backend.IPTablesNFT {
		return k.sh("nft -s list table ip nat; nft -s list table ip6 nat")
	}
	return k.sh("$T -t nat -S; $T6 -t nat -S")
}

// state has the default policy and n more prefixes.
func (k *kernel) state(n int, attachments ...attachment.Attachment) ruleset.State {
	p := policy.Default(k.s)
	for i := range n {
		p.NonMasquerade = append(p.NonMasquerade, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, byte(i >> 16), byte(i >> 8), byte(i)}), 32))
	}
	return ruleset.Build(p, attachments, ruleset.Node{})
}

func pod(n int) attachment.Attachment {
	return attachment.Attachment{
		Owner:     attachment.Owner{Network: "net", ContainerID: fmt.Sprint("container", n), IfName: "eth0"},
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, byte(n >> 8), byte(n)}), netip.MustParseAddr(fmt.Sprintf("fd00:244::%x", n))},
	}
}

func (k *kernel) observe() (got backend.Observed) {
	k.Helper()
	k.must(k.in(func(ctx context.Context) (err error) {
		got, err = k.b.Observe(ctx, k.s, k.s.Families()...)
		return err
	}), "Observe")
	return got
}

func (k *kernel) apply(want ruleset.State) (changed bool) {
	k.Helper()
	got := k.observe()
	k.must(k.in(func(ctx context.Context) (err error) {
		changed, err = k.b.Apply(ctx, got, want)
		return err
	}), "Apply")
	return changed
}

// settle applies, and again, which must find nothing to do.
func (k *kernel) settle(want ruleset.State) {
	k.Helper()
	k.apply(want)
	if k.apply(want) {
		k.Errorf("a second Apply wrote again:\n%s", k.rules())
	}
}

func (k *kernel) attach(a attachment.Attachment) {
	k.Helper()
	want := k.state(0).Only(ruleset.Pods(a))
	k.must(k.in(func(ctx context.Context) error { return k.b.Attach(ctx, want) }), "Attach")
}

func (k *kernel) detach(a attachment.Attachment, known ...ruleset.Pod) {
	k.Helper()
	k.must(k.in(func(ctx context.Context) error {
		return k.b.Detach(ctx, k.s, k.s.Families(), a.ID(), known, func(netip.Addr) []ruleset.Pod { return nil })
	}), "Detach")
}

// processes counts the iptables programs that a call starts: names ahead in PATH note each start.
func (k *kernel) processes(call func()) int {
	k.Helper()
	dir := k.TempDir()
	log := filepath.Join(dir, "log")
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, rest := range []string{"-nft", "-nft-restore", "-legacy", "-legacy-restore"} {
			program, err := exec.LookPath(family + rest)
			k.must(err, "look up")
			script := fmt.Sprintf("#!/bin/sh\necho %s \"$@\" >>%s\nexec %s \"$@\"\n", family+rest, log, program)
			k.must(os.WriteFile(filepath.Join(dir, family+rest), []byte(script), 0o755), "write")
		}
	}
	former := os.Getenv("PATH")
	k.Setenv("PATH", dir+":"+former)
	call()
	k.Setenv("PATH", former)
	data, _ := os.ReadFile(log)
	k.Logf("started:\n%s", data)
	return strings.Count(string(data), "\n")
}
