package iptables

import (
	"context"
	"strings"
)

// chrooted makes go-iptables' calls below a host's root. The library starts programs where its own process sees them, and a
// thread that sees another root takes unshare(2), which the container runtimes' default seccomp profile refuses to everybody
// without CAP_SYS_ADMIN. A child's chroot(2) takes CAP_SYS_CHROOT alone.
type chrooted struct {
	ctx     context.Context
	b       *Backend
	command string
}

func (c chrooted) run(table string, args ...string) ([]string, error) {
	args = append(append(c.b.wait(c.ctx), "-t", table), args...)
	out, err := c.b.host.run(c.ctx, c.command, args, "")
	return strings.Split(out, "\n"), err
}

func (c chrooted) List(table, chain string) ([]string, error) { return c.run(table, "-S", chain) }

func (c chrooted) ListWithCounters(table, chain string) ([]string, error) {
	return c.run(table, "-v", "-S", chain)
}

func (c chrooted) Delete(table, chain string, rule ...string) error {
	_, err := c.run(table, append([]string{"-D", chain}, rule...)...)
	return err
}

// ClearChain needs not make the chain: callers know that it is there.
func (c chrooted) ClearChain(table, chain string) error {
	_, err := c.run(table, "-F", chain)
	return err
}

func (c chrooted) DeleteChain(table, chain string) error {
	_, err := c.run(table, "-X", chain)
	return err
}
