// Package iptables keeps the desired state in table nat, by iptables-restore of either variant: nft, which speaks to
// nf_tables, or legacy, which speaks to ip_tables. Both are the same code.
//
// It never lists a whole table, because one native nftables rule makes that fail and five thousand chains make it slow. It
// never changes a rule that is not its own, and it never runs a program twice where once is enough: every write is one
// process that also reads the result back. It reads no English: what a failure means follows from the exit status alone.
package iptables

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Backend drives one variant of iptables.
type Backend struct {
	kind backend.Kind
	host Host
}

var (
	_ backend.Backend      = (*Backend)(nil)
	_ backend.Generational = (*Backend)(nil)
)

// New returns the backend for kind, IPTablesNFT or IPTablesLegacy. The host's programs are looked for when they are needed.
func New(kind backend.Kind, host Host) *Backend { return &Backend{kind: kind, host: host} }

// Kind returns the variant.
func (b *Backend) Kind() backend.Kind { return b.kind }

// untouched reports whether reading would create what it reads: iptables-legacy instantiates table nat by looking at it. The
// kernel lists the tables that are there per network namespace.
func (b *Backend) untouched(family policy.Family) bool {
	return b.kind == backend.IPTablesLegacy && !LegacyTable(family, natTable)
}

// LegacyTable reports whether an ip_tables table is instantiated in this network namespace.
func LegacyTable(family policy.Family, table string) bool {
	name := "ip_tables_names"
	if family == policy.IPv6 {
		name = "ip6_tables_names"
	}
	data, err := os.ReadFile("/proc/thread-self/net/" + name)
	return err == nil && slices.Contains(strings.Fields(string(data)), table)
}

// The exit statuses of iptables (include/xtables.h) that say more than "that rule or chain is not there".
const (
	exitVersion  = 3 // the kernel lacks something: VERSION_PROBLEM
	exitResource = 4 // no memory, or a lock: RESOURCE_PROBLEM
)

// restore runs one script. The error is ErrBusy for a lock that somebody held for too long, ErrUnavailable where the program
// or the kernel's side of it is missing, the context's error when time ran out, and otherwise just a refused transaction.
func (b *Backend) restore(ctx context.Context, family policy.Family, sc *script) (string, error) {
	tool, err := b.host.find(b.kind, family)
	if err != nil {
		return "", err
	}
	out, err := b.host.run(ctx, tool.restore, []string{"--noflush", "-w", waitSeconds(ctx)}, sc.String())
	if err == nil {
		return out, nil
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s: %w", tool.restore, ctx.Err())
	}
	var failed *ExitError
	if !errors.As(err, &failed) {
		return "", fmt.Errorf("%w: %w", backend.ErrUnavailable, err)
	}
	switch {
	case failed.Signal == syscall.SIGKILL: // nobody's fault but that of a machine without memory: it may work next time
		return "", fmt.Errorf("%w: %w", backend.ErrBusy, err)
	case failed.Signal != 0:
		return "", fmt.Errorf("%w: %w", errKilled, err)
	case failed.Status == exitResource:
		return "", fmt.Errorf("%w: %w", backend.ErrBusy, err)
	case failed.Status == exitVersion:
		return "", fmt.Errorf("%w: %w", backend.ErrUnavailable, err)
	}
	return "", err
}

// errKilled is a program that a signal ended, which says nothing about what it looked for.
var errKilled = errors.New("ended by a signal")

// ExitError is a program that ended with a status other than 0.
type ExitError struct {
	Program string
	Status  int
	Signal  syscall.Signal // that ended it; then Status says nothing
	Stderr  string
	Input   string
}

// Error says what ran and the first line that it complained with.
func (e *ExitError) Error() string {
	line, _, _ := strings.Cut(strings.TrimSpace(e.Stderr), "\n")
	if e.Signal != 0 {
		return fmt.Sprintf("%s: ended by signal %q: %s", e.Program, e.Signal, line)
	}
	return fmt.Sprintf("%s: exit status %d: %s", e.Program, e.Status, line)
}
