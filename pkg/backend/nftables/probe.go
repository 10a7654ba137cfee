package nftables

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Probe writes the state of a node with one pod into a table of its own, reads its rules back and deletes it. The table is
// dormant, so that no packet meets it, and where the kernel can do that it belongs to the socket, so that it goes with the
// process in any case. What a killed probe left is removed first. Where random ports are refused it asks again without.
func (b *Backend) Probe(ctx context.Context, family policy.Family) (backend.Features, error) {
	if err := session(ctx, removeStaleProbes); err != nil {
		return backend.Features{}, err
	}
	err := session(ctx, func(c *nfnl.Conn) error { return probe(c, family, true) })
	if err == nil {
		return backend.Features{RandomFully: true}, nil
	}
	if classified(err) {
		return backend.Features{}, err
	}
	err = session(ctx, func(c *nfnl.Conn) error { return probe(c, family, false) })
	if err != nil && !classified(err) {
		err = fmt.Errorf("%w: nftables test rule: %w", backend.ErrUnavailable, err)
	}
	return backend.Features{}, err
}

// probe tries without an owned table where the kernel does not know such (before Linux 5.12), and where the table went while its
// socket was open (ENOENT): the kernel finds the tables of a closing socket by its port, which a new socket can have by then.
func probe(c *nfnl.Conn, family policy.Family, randomFully bool) error {
	err := probeTable(c, family, randomFully, unix.NFT_TABLE_F_DORMANT|tableOwner)
	if isAny(err, unix.EOPNOTSUPP, unix.EINVAL, unix.ENOENT) {
		return probeTable(c, family, randomFully, unix.NFT_TABLE_F_DORMANT)
	}
	return err
}

// tableOwner is NFT_TABLE_F_OWNER: the kernel deletes the table when the socket closes.
const tableOwner = 2

func probeTable(c *nfnl.Conn, family policy.Family, randomFully bool, flags uint32) error {
	name := probeTableName(time.Now())
	t := probeTarget(family, randomFully).inTable(name)
	b := nfnl.NewBatch()
	b.AddTable(name, flags, nfnl.Excl)
	for _, s := range t.sets {
		b.AddSet(s.Set)
		b.AddElements(name, s.Name, elements(s.Set, s.members, nil), nfnl.Excl)
	}
	planChains(b, t, &reading{})
	if err := c.Commit(b); err != nil {
		return err
	}
	_, err := confirm(c, name, t)
	drop := nfnl.NewBatch()
	drop.DeleteTable(name)
	return errors.Join(err, c.Commit(drop))
}

// probePrefix begins the names of the tables that probes write.
const probePrefix = tableName + "-probe-"

func isProbeTable(name string) bool { return strings.HasPrefix(name, probePrefix) }

// probeTableName makes a name that tells when the probe began and that no other probe has: process ids repeat, in a container
// with every start.
func probeTableName(now time.Time) string {
	return fmt.Sprintf("%s%d-%08x", probePrefix, now.Unix(), rand.Uint32())
}

// probeTime is how long a probe may take. It takes milliseconds.
const probeTime = time.Minute

// isStaleProbe reports whether the table is one that no running probe has. Earlier versions had a process id in place of the time.
func isStaleProbe(name string, now time.Time) bool {
	text, _, _ := strings.Cut(strings.TrimPrefix(name, probePrefix), "-")
	began, err := strconv.ParseInt(text, 10, 64)
	return isProbeTable(name) && (err != nil || now.Sub(time.Unix(began, 0)).Abs() > probeTime)
}

// removeStaleProbes removes what killed probes left. A table that belongs to a process goes with that.
func removeStaleProbes(c *nfnl.Conn) error {
	names, err := c.Tables()
	if uninterrupted(err) != nil {
		return err
	}
	for _, name := range names {
		if !isStaleProbe(name, time.Now()) {
			continue
		}
		b := nfnl.NewBatch()
		b.DeleteTable(name)
		if err := c.Commit(b); err != nil && !isAny(err, unix.ENOENT, unix.EPERM) {
			return err
		}
	}
	return nil
}

// probeTarget has a rule of every form, and an element of every kind.
func probeTarget(family policy.Family, randomFully bool) target {
	s := policy.DefaultSettings()
	s.RandomFully = randomFully
	address := family.LinkLocal().Addr().Next()
	return aim(ruleset.State{Settings: s, Tables: []ruleset.Table{{
		Family:       family,
		Destinations: []policy.Destination{{Prefix: netip.PrefixFrom(address, family.Bits()), Verdict: policy.Keep}},
		Pods:         []ruleset.Pod{{Owner: attachment.Owner{}.ID(), Address: address, Label: "probe"}},
	}}}, &reading{}, InPlace, countLimitOf(kernelRelease()))
}

// inTable moves a target to another table.
func (t target) inTable(name string) target {
	for i := range t.sets {
		t.sets[i].Table = name
	}
	for i := range t.chains {
		t.chains[i].Table = name
		for j := range t.chains[i].rules {
			t.chains[i].rules[j].Table = name
		}
	}
	return t
}
