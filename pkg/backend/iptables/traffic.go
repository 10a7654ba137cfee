package iptables

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Traffic asks the kernel for the rules of the shared chain, one for each prefix.
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

// trafficNFT repeats a reading during which other software changed the ruleset: it may lack rules, and one that is missed looks
// like one that was deleted.
func trafficNFT(ctx context.Context, s policy.Settings, family policy.Family) (traffic []backend.Traffic, err error) {
	for range readAttempts {
		traffic = traffic[:0]
		err = withNFT(family, func(c *nfnl.Conn) error {
			var content []byte
			_, err := c.RawRulesWhere(natTable, s.Chain, func(raw []byte) bool {
				r := nfnl.DecodeRule(raw)
				if verdict, ok := verdictNFT(r); ok {
					content = nfnl.AppendContent(content[:0], raw)
					packets, bytes := nfnl.Counted(r)
					traffic = append(traffic, backend.Traffic{Rule: maphash.Bytes(seed, content), Family: family, Verdict: verdict, Packets: packets, Bytes: bytes})
				}
				return false
			})
			return err
		})
		if !errors.Is(err, nfnl.ErrInterrupted) || ctx.Err() != nil {
			break
		}
	}
	return traffic, classifyKernel(err)
}

// verdictNFT returns what a rule of the shared chain does; ok is false for a rule that was not written for the policy.
func verdictNFT(r nfnl.Rule) (verdict policy.Verdict, ok bool) {
	for _, expr := range r.Exprs {
		if code, ok := nfnl.VerdictOf(expr); ok && code == unix.NFT_RETURN {
			return policy.Keep, true
		}
		if nfnl.ExprName(expr) == "masq" || nfnl.XTName(expr) == masqueradeTarget {
			return policy.Masquerade, true
		}
	}
	return "", false
}

const masqueradeTarget = "MASQUERADE"

func trafficLegacy(_ context.Context, s policy.Settings, family policy.Family) ([]backend.Traffic, error) {
	if !LegacyTable(family, natTable) {
		return nil, nil
	}
	entries, err := legacyEntries(family, natTable)
	if err != nil {
		return nil, err
	}
	var traffic []backend.Traffic
	inChain := false
	for entry := range legacyWalk(family, entries) {
		name, info := entry.jump()
		if name == "ERROR" {
			inChain = string(info) == s.Chain
			continue
		}
		if verdict, ok := verdictLegacy(name, info); ok && inChain {
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

// verdictLegacy takes the RETURN that ends every chain for one of the policy's: no packet gets there, because the last rule of the
// shared chain takes all.
func verdictLegacy(name string, info []byte) (verdict policy.Verdict, ok bool) {
	switch {
	case name == masqueradeTarget:
		return policy.Masquerade, true
	case name == "" && len(info) >= 4 && int32(binary.NativeEndian.Uint32(info)) == xtReturn:
		return policy.Keep, true
	}
	return "", false
}
