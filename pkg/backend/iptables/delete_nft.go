package iptables

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// deleteNFT deletes the wanted rules of chains, in all families at once, however often each stands there. It needs no iptables, finds
// rules behind one that iptables cannot read, and waits for one grace period of the kernel. The kernel tells whole chains alone, and
// takes nothing but a handle for a rule that is to go.
func deleteNFT(ctx context.Context, in []string, families []policy.Family, wanted func(f policy.Family, raw []byte) bool) error {
	return deleteChosen(ctx, in, families, wanted, func(rules [][]byte) [][]byte { return rules })
}

// deleteChosen is deleteNFT for those of the wanted rules that choose selects among them.
func deleteChosen(ctx context.Context, in []string, families []policy.Family, wanted func(policy.Family, []byte) bool, choose func([][]byte) [][]byte) error {
	c, err := nfnl.Borrow(unix.NFPROTO_INET)
	if err != nil {
		return classifyKernel(err)
	}
	err = again(ctx, func() error {
		generation, err := c.Settled() // handles count from 1 in every new table: the guard keeps a former one from being taken
		if err != nil {
			return err
		}
		b := nfnl.NewGuardedBatch(generation)
		for _, family := range families {
			c.In(nfFamily(family))
			b.In(nfFamily(family))
			for _, chain := range in {
				rules, err := nftRulesWhere(c, chain, func(raw []byte) bool { return wanted(family, raw) })
				if err != nil {
					return err
				}
				for _, raw := range choose(rules) {
					b.DeleteRule(nfnl.Rule{Table: natTable, Chain: chain, Handle: nfnl.DecodeRule(raw).Handle})
				}
			}
		}
		return c.Commit(b)
	})
	c.Return(err)
	return err
}

// The pauses between two attempts.
const (
	firstPause = 100 * time.Microsecond
	longPause  = 20 * time.Millisecond
)

// again repeats a reading and the transaction planned from it until no other transaction comes between the two. The pauses
// grow, and the clock's last digits vary them, so that fifty plugins at once do not stay in step.
func again(ctx context.Context, attempt func() error) error {
	ctx, cancel := context.WithTimeout(ctx, defaultWait*time.Second)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := classifyKernel(attempt())
		if err == nil || !errors.Is(err, backend.ErrBusy) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause/2 + time.Duration(time.Now().Nanosecond())%pause):
		}
	}
}
