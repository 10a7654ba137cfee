package iptables

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Traffic asks the kernel for the rules of the shared chain, one for each prefix, and of the chains that these lead to.
func (b *Backend) Traffic(ctx context.Context, s policy.Settings, families ...policy.Family) ([]backend.Traffic, error) {
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
		all = append(all, traffic...)
	}
	return all, nil
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
			if verdict, ok := verdictNFT(r); ok {
				content = nfnl.AppendContent(content[:0], raw)
				packets, bytes := nfnl.Counted(r)
				traffic = append(traffic, backend.Traffic{Rule: maphash.Bytes(seed, content), Family: family, Verdict: verdict, Packets: packets, Bytes: bytes})
			}
			return false
		})
		if !errors.Is(err, nfnl.ErrInterrupted) || ctx.Err() != nil {
			break
		}
	}
	return traffic, leads, err
}

// verdictNFT returns what a rule of the shared chain does; ok is false for a rule that was not written for the policy.
func verdictNFT(r nfnl.Rule) (verdict policy.Verdict, ok bool) {
	for _, expr := range r.Exprs {
		target := nfnl.XTName(expr)
		if nfnl.ExprName(expr) == "match" {
			continue
		}
		switch code, is := nfnl.VerdictOf(expr); {
		case is && code == unix.NFT_RETURN:
			target = "RETURN"
		case nfnl.ExprName(expr) == "masq":
			target = "MASQUERADE"
		case nfnl.ExprName(expr) == "nat":
			target = "SNAT"
		case nfnl.ExprName(expr) == "queue":
			target = "NFQUEUE"
		}
		if verdict := verdictOfTarget(target, nfnl.XTComment(r)); verdict != "" {
			return verdict, true
		}
	}
	return "", false
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
	inChain, counted := false, false // the entry before was counted
	for entry := range legacyWalk(family, entries) {
		name, info := entry.jump()
		if name == "ERROR" {
			if counted {
				traffic = traffic[:len(traffic)-1]
			}
			inChain, counted = isDeciding(s, string(info)), false
			continue
		}
		verdict := verdictLegacy(name, info, entry.data)
		if counted = inChain && verdict != ""; counted {
			counts := entry.data[entry.counters:]
			t := backend.Traffic{Family: family, Verdict: verdict, Packets: binary.NativeEndian.Uint64(counts), Bytes: binary.NativeEndian.Uint64(counts[8:])}
			clear(entry.data[entry.comefrom : entry.comefrom+4])
			clear(counts[:16])
			t.Rule = maphash.Bytes(seed, entry.data)
			traffic = append(traffic, t)
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

func verdictLegacy(target string, info, entry []byte) policy.Verdict {
	if target == "" && len(info) >= 4 && int32(binary.NativeEndian.Uint32(info)) == xtReturn {
		target = "RETURN"
	}
	comment := ""
	if bytes.Contains(entry, []byte(discardComment)) {
		comment = discardComment
	}
	return verdictOfTarget(target, comment)
}
