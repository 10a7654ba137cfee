package iptables

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	goiptables "github.com/coreos/go-iptables/iptables"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// tables are the calls of go-iptables that are made here.
type tables interface {
	List(table, chain string) ([]string, error)
	ListWithCounters(table, chain string) ([]string, error)
	Delete(table, chain string, rule ...string) error
	ClearChain(table, chain string) error
	DeleteChain(table, chain string) error
}

// call makes calls of go-iptables, each of which starts one process or more. The library knows no context, so they are made on
// a thread of their own. Below a host's root it cannot be used: see chrooted.
func call[T any](ctx context.Context, b *Backend, family policy.Family, calls func(tables) (T, error)) (value T, err error) {
	found, err := b.host.find(b.kind, family)
	if err != nil {
		return value, err
	}
	if b.host != "" {
		value, err = calls(chrooted{ctx, b, found.command})
		return value, classify(ctx, err)
	}
	result := make(chan T, 1)
	err = onThread(ctx, func() error {
		opened, err := opened.get(found.command, family, waitSeconds(ctx))
		if err != nil {
			return notOpened(ctx, found.command, err)
		}
		value, err := calls(opened)
		result <- value
		return exitError(found.command, err)
	})
	if err == nil {
		value = <-result
	}
	return value, classify(ctx, err)
}

// notOpened asks for the version once more: go-iptables tells in words alone why it could not, and a program that was killed, on
// a machine without memory say, is no reason to move a node to another kind of rules.
func notOpened(ctx context.Context, program string, err error) error {
	if _, again := Host("").run(ctx, program, []string{"--version"}, ""); again != nil {
		return classify(ctx, again)
	}
	return fmt.Errorf("%w: %w", backend.ErrBusy, err)
}

// opened keeps what go-iptables learns by a process whenever it is opened: the program's version.
var opened openedTables

type openedTables struct {
	mu  sync.Mutex
	all map[openedKey]*goiptables.IPTables
}

type openedKey struct {
	path    string
	changed time.Time // an upgrade replaces the program
	family  policy.Family
	wait    int
}

func (o *openedTables) get(path string, family policy.Family, wait int) (*goiptables.IPTables, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	key := openedKey{path, info.ModTime(), family, wait}
	o.mu.Lock()
	known := o.all[key]
	o.mu.Unlock()
	if known != nil {
		return known, nil
	}
	protocol := goiptables.ProtocolIPv4
	if family == policy.IPv6 {
		protocol = goiptables.ProtocolIPv6
	}
	opened, err := goiptables.New(goiptables.Path(path), goiptables.IPFamily(protocol), goiptables.Timeout(wait))
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = map[openedKey]*goiptables.IPTables{}
	}
	o.all[key] = opened
	return opened, nil
}

// list returns the rules of a chain that is there, each with -c PACKETS BYTES.
func (b *Backend) list(ctx context.Context, family policy.Family, table, chain string) ([]rule, error) {
	return call(ctx, b, family, func(t tables) ([]rule, error) {
		lines, err := t.ListWithCounters(table, chain)
		return parseChains(strings.Join(lines, "\n"))[chain], err
	})
}
