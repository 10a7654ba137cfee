package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// What iptables-nft has written can be read over netlink without a process, and native rules of nftables beside it, at which
// iptables gives up or prints less than they say. Rules are told apart there by their comments and targets.

// withNFT makes calls on one socket.
func withNFT(family policy.Family, calls func(c *nfnl.Conn) error) error {
	c, err := nfnl.Borrow(nfFamily(family))
	if err != nil {
		return classifyKernel(err)
	}
	err = calls(c)
	c.Return(err)
	return err
}

func nfFamily(family policy.Family) uint8 {
	if family == policy.IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// nftRules reads a chain of table nat; of one that is not there, no rules. A reading during which other software changed the
// ruleset is repeated, until two agree: what changes continuously is hardly ever this chain.
func nftRules(c *nfnl.Conn, chain string) ([][]byte, error) {
	return nftRulesWhere(c, chain, func([]byte) bool { return true })
}

// nftRulesWhere reads those of a chain's rules that are wanted.
func nftRulesWhere(c *nfnl.Conn, chain string, wanted func(raw []byte) bool) ([][]byte, error) {
	var former [][]byte
	for attempt := range readAttempts {
		rules, err := c.RawRulesWhere(natTable, chain, wanted)
		if !errors.Is(err, nfnl.ErrInterrupted) {
			return rules, classifyKernel(err)
		}
		if attempt > 0 && contentOf(rules) == contentOf(former) {
			return rules, nil
		}
		former = rules
	}
	return nil, classifyKernel(nfnl.ErrInterrupted)
}

// readAttempts is for readings that other software interrupts. One takes microseconds where a change takes milliseconds.
const readAttempts = 100

// chainOf reads the rules of a chain and whether it is there.
func chainOf(c *nfnl.Conn, chain string) (rules [][]byte, there bool, err error) {
	if rules, err = nftRules(c, chain); err != nil || len(rules) > 0 {
		return rules, err == nil, err
	}
	_, there, err = c.Chain(natTable, chain)
	return nil, there, classifyKernel(err)
}

// nftRoots reads POSTROUTING.
func nftRoots(c *nfnl.Conn, s policy.Settings) ([]root, error) {
	rules, err := nftRules(c, postrouting)
	return rootsNFT(s, rules), err
}

func rootsNFT(s policy.Settings, rules [][]byte) []root {
	roots := make([]root, len(rules))
	for i, raw := range rules {
		r := nfnl.DecodeRule(raw)
		roots[i] = root{rule: rootOf(s, r), handle: r.Handle, final: endsNative(r)}
	}
	return roots
}

// rootOf returns the rule of POSTROUTING as an ip-masq-agent would have written it, nil for a rule of other software.
func rootOf(s policy.Settings, r nfnl.Rule) rule {
	target := nfnl.Target(r)
	as := rule{"-m", "comment", "--comment", nfnl.XTComment(r), "-j", target}
	if target == "" || !isRoot(s, as) {
		return nil
	}
	for _, known := range knownRoots(s) {
		if known.value("--comment") == as.value("--comment") && known.target() == target && slices.Equal(known.matches(), matchesOf(r)) {
			return known
		}
	}
	return as
}

// matchesOf names the extensions and expressions by which a rule selects packets, but for the comment.
func matchesOf(r nfnl.Rule) []string {
	var names []string
	for _, expr := range r.Exprs {
		switch name := nfnl.ExprName(expr); name {
		case "counter", "immediate", "target", "masq", "nat", "redir", "log":
		case "match":
			if name = nfnl.XTName(expr); name != "comment" {
				names = append(names, name)
			}
		default:
			names = append(names, name)
		}
	}
	return names
}

// endsNative recognises a rule that no packet gets past, like endsTraversal.
func endsNative(r nfnl.Rule) bool {
	if len(r.Exprs) == 0 || len(matchesOf(r)) > 0 {
		return false
	}
	last := r.Exprs[len(r.Exprs)-1]
	switch nfnl.ExprName(last) {
	case "masq", "nat", "redir":
		return true
	case "target":
		return slices.Contains(finalTargets, nfnl.XTName(last))
	}
	code, ok := nfnl.VerdictOf(last)
	return ok && (code == unix.NFT_RETURN || code == nfAccept || code == nfDrop)
}

// The verdicts of netfilter (linux/netfilter.h).
const (
	nfDrop   = 0
	nfAccept = 1
)

// nftHasRules reports whether a chain of table nat is there and not empty, however long it is.
func nftHasRules(family policy.Family, chain string) (has bool, err error) {
	err = withNFT(family, func(c *nfnl.Conn) (err error) {
		has, err = c.HasRules(natTable, chain)
		return classifyKernel(err)
	})
	return has, err
}

func nftHasChain(family policy.Family, table, chain string) (there bool, err error) {
	err = withNFT(family, func(c *nfnl.Conn) (err error) {
		_, there, err = c.Chain(table, chain)
		return classifyKernel(err)
	})
	return there, err
}

// Generation returns the number that every change of nf_tables increments, iptables-nft's changes included; iptables-legacy
// counts nothing.
func (b *Backend) Generation(context.Context) (generation uint32, err error) {
	if !b.isNFT() {
		return 0, errNotCounted
	}
	err = withNFT(policy.IPv4, func(c *nfnl.Conn) error {
		generation, err = c.Settled()
		return err
	})
	return generation, err
}

// Forget makes the next Observe list every chain.
func (b *Backend) Forget() { remembered.forget() }

var errNotCounted = errors.New("ip_tables does not count its changes")

// nftFilled is a sentence for errors.
func nftFilled(family policy.Family, chain string) error {
	filled, err := nftHasRules(family, chain)
	if err == nil && !filled {
		err = errors.New("it is missing or empty")
	}
	if err != nil {
		return fmt.Errorf("%w: chain %s: %w", backend.ErrIncomplete, chain, err)
	}
	return nil
}
