package iptables

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Traffic asks the kernel for the rules of the shared chain, one for each prefix, and of the chains that these lead to.
func (b *Backend) Traffic(ctx context.Context, s policy.Settings, byPrefix bool, families ...policy.Family) ([]backend.Traffic, error) {
	var all []backend.Traffic
	for _, family := range families {
		read := trafficLegacy
		if b.isNFT() {
			read = trafficNFT
		}
		traffic, err := read(ctx, s, family)
		if err != nil {
			return nil, fmt.Errorf("read %s counters: %w", family, err)
		}
		for _, t := range traffic {
			if byPrefix || !t.Prefix.IsValid() {
				all = append(all, t)
			}
		}
	}
	return all, nil
}

// ofPrefix is what a rule tells of its prefix, which is another count than that of the rule's verdict.
func ofPrefix(t backend.Traffic, verdict policy.Verdict, prefix netip.Prefix) backend.Traffic {
	t.Rule, t.Verdict, t.Prefix = ^t.Rule, verdict, prefix
	return t
}

func trafficNFT(ctx context.Context, s policy.Settings, family policy.Family) (all []backend.Traffic, err error) {
	chains := []string{s.Chain}
	err = withNFT(family, func(c *nfnl.Conn) error {
		for i := 0; i < len(chains); i++ {
			traffic, leads, err := trafficOfNFT(ctx, c, family, chains[i])
			if err != nil {
				return classifyKernel(err)
			}
			all = append(all, traffic...)
			for _, to := range leads {
				if isDeciding(s, to) && !slices.Contains(chains, to) {
					chains = append(chains, to)
				}
			}
		}
		return nil
	})
	return all, err
}

// trafficOfNFT repeats a reading during which other software changed the ruleset: it may lack rules, and one that is missed looks
// like one that was deleted.
func trafficOfNFT(ctx context.Context, c *nfnl.Conn, family policy.Family, chain string) (traffic []backend.Traffic, leads []string, err error) {
	for range readAttempts {
		traffic, leads = traffic[:0], leads[:0]
		var content []byte
		_, err = c.RawRulesWhere(natTable, chain, func(raw []byte) bool {
			r := nfnl.DecodeRule(raw)
			if to := nfnl.Target(r); to != "" {
				leads = append(leads, to)
			}
			target := targetNFT(r)
			verdict, ofOne := verdictOfTarget(target, nfnl.XTComment(r)), verdictOfPrefix(target, nfnl.XTComment(r))
			if verdict == "" && ofOne == "" {
				return false
			}
			content = nfnl.AppendContent(content[:0], raw)
			packets, bytes := nfnl.Counted(r)
			t := backend.Traffic{Rule: maphash.Bytes(seed, content), Family: family, Verdict: verdict, Packets: packets, Bytes: bytes}
			if verdict != "" {
				traffic = append(traffic, t)
			}
			if prefix, ok := nfnl.Destination(r, family.Bits()/8); ok && ofOne != "" {
				traffic = append(traffic, ofPrefix(t, ofOne, prefix))
			}
			return false
		})
		if !errors.Is(err, nfnl.ErrInterrupted) || ctx.Err() != nil {
			break
		}
	}
	return traffic, leads, err
}

// targetNFT names what a rule does with a packet as iptables does; nothing for a rule that was not written for the policy.
func targetNFT(r nfnl.Rule) string {
	for _, expr := range r.Exprs {
		if nfnl.ExprName(expr) == "match" {
			continue
		}
		switch code, is := nfnl.VerdictOf(expr); {
		case is && code == unix.NFT_RETURN:
			return "RETURN"
		case nfnl.ExprName(expr) == "masq":
			return "MASQUERADE"
		case nfnl.ExprName(expr) == "nat":
			return "SNAT"
		case nfnl.ExprName(expr) == "queue":
			return "NFQUEUE"
		}
		if target := nfnl.XTName(expr); target != "" {
			return target
		}
	}
	return nfnl.Target(r)
}

// trafficLegacy goes through the table once, whatever leads where. The RETURN that ends every chain is no rule.
func trafficLegacy(_ context.Context, s policy.Settings, family policy.Family) ([]backend.Traffic, error) {
	if !LegacyTable(family, natTable) {
		return nil, nil
	}
	entries, err := legacyEntries(family, natTable)
	if err != nil {
		return nil, err
	}
	var traffic []backend.Traffic
	inChain, counted := false, 0 // what the entry before has added
	for entry := range legacyWalk(family, entries) {
		name, info := entry.jump()
		if name == "ERROR" {
			traffic = traffic[:len(traffic)-counted]
			inChain, counted = isDeciding(s, string(info)), 0
			continue
		}
		target, comment := targetLegacy(name, info), commentLegacy(entry.data)
		verdict, ofOne := verdictOfTarget(target, comment), verdictOfPrefix(target, comment)
		if counted = 0; !inChain || verdict == "" && ofOne == "" {
			continue
		}
		counts := entry.data[entry.counters:]
		t := backend.Traffic{Family: family, Verdict: verdict, Packets: binary.NativeEndian.Uint64(counts), Bytes: binary.NativeEndian.Uint64(counts[8:])}
		clear(entry.data[entry.comefrom : entry.comefrom+4])
		clear(counts[:16])
		t.Rule = maphash.Bytes(seed, entry.data)
		if verdict != "" {
			traffic = append(traffic, t)
			counted++
		}
		if prefix, ok := entry.destination(family); ok && ofOne != "" {
			traffic = append(traffic, ofPrefix(t, ofOne, prefix))
			counted++
		}
	}
	return traffic, nil
}

// jump returns the name of an entry's target, empty for a verdict or a chain, and what the target is told, up to the first zero
// where it is a text.
func (e legacyEntry) jump() (name string, info []byte) {
	const nameAt, infoAt = 2, 32 // in xt_entry_target
	target := e.data[e.target:]
	if len(target) < infoAt+4 {
		return "", nil
	}
	text, _, _ := bytes.Cut(target[nameAt:infoAt-1], []byte{0})
	info = target[infoAt:]
	if string(text) == "ERROR" {
		info, _, _ = bytes.Cut(info, []byte{0})
	}
	return string(text), info
}

// xtReturn is how a rule of ip_tables says RETURN (XT_RETURN in linux/netfilter/x_tables.h).
const xtReturn = -5

// targetLegacy names what an entry does with a packet as iptables does. A verdict that is not negative leads to a chain, which begins that
// far into the table.
func targetLegacy(name string, info []byte) string {
	if name == "" && len(info) >= 4 {
		switch verdict := int32(binary.NativeEndian.Uint32(info)); {
		case verdict == xtReturn:
			return "RETURN"
		case verdict >= 0:
			return "a chain"
		}
	}
	return name
}

// commentLegacy finds those comments of the policy's rules that say what a rule is about.
func commentLegacy(entry []byte) string {
	for _, text := range []string{keepComment, exceptionComment, discardComment} {
		if bytes.Contains(entry, []byte(text)) {
			return text
		}
	}
	if bytes.Contains(entry, []byte(groupComment)) {
		return groupComment
	}
	return ""
}

// destination reads the prefix that an entry is about (struct ipt_ip, ip6t_ip6: source, destination, and their masks).
func (e legacyEntry) destination(family policy.Family) (netip.Prefix, bool) {
	size := family.Bits() / 8
	address, ok := netip.AddrFromSlice(e.data[size : 2*size])
	ones, contiguous := nfnl.Ones(e.data[3*size : 4*size])
	return netip.PrefixFrom(address, ones), ok && contiguous
}
