package nftables

import (
	"context"
	"slices"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// evidenceTimeout bounds one look at the kernel.
const evidenceTimeout = 3 * time.Second

// Installed reports why the backend cannot work here, as far as one netlink message can tell: it needs no program.
func Installed(policy.Family) error {
	ctx, cancel := context.WithTimeout(context.Background(), evidenceTimeout)
	defer cancel()
	_, err := New().Generation(ctx)
	return err
}

// Standing reports whether anything managed by ip-masq is there for a family. The settings do not matter: there is one table, and its
// sets have the same names under every policy. It writes nothing.
func Standing(_ policy.Settings, family policy.Family) bool {
	ctx, cancel := context.WithTimeout(context.Background(), evidenceTimeout)
	defer cancel()
	standing := false
	err := session(ctx, func(c *nfnl.Conn) error {
		sets, err := c.Sets(tableName)
		standing = slices.ContainsFunc(sets, func(s nfnl.Set) bool {
			f, ours := ownSet(s.Name)
			return ours && f == family
		})
		return err
	})
	return err == nil && standing
}
