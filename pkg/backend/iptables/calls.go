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

// call makes calls of go-iptables, each of which starts one process or more, on a thread of their own: the library knows no
// context, and looks for programs where the thread's root is.
func call[T any](ctx context.Context, b *Backend, family policy.Family, calls func(*goiptables.IPTables) (T, error)) (value T, err error) {
	result := make(chan T, 1)
	err = b.host.thread(ctx, func() error {
		found, err := find(b.kind, family)
		if err != nil {
			return err
		}
		tables, err := opened.get(b.host, found.command, family, waitSeconds(ctx))
		if err != nil {
			return notOpened(ctx, found.command, err)
		}
		value, err := calls(tables)
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
	if _, again := run(ctx, program, []string{"--version"}, ""); again != nil {
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
	host    Host
	path    string
	changed time.Time // an upgrade replaces the program
	family  policy.Family
	wait    int
}

func (o *openedTables) get(h Host, path string, family policy.Family, wait int) (*goiptables.IPTables, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	key := openedKey{h, path, info.ModTime(), family, wait}
	o.mu.Lock()
	tables := o.all[key]
	o.mu.Unlock()
	if tables != nil {
		return tables, nil
	}
	protocol := goiptables.ProtocolIPv4
	if family == policy.IPv6 {
		protocol = goiptables.ProtocolIPv6
	}
	if tables, err = goiptables.New(goiptables.Path(path), goiptables.IPFamily(protocol), goiptables.Timeout(wait)); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = map[openedKey]*goiptables.IPTables{}
	}
	o.all[key] = tables
	return tables, nil
}

// list returns the rules of a chain that is there.
func (b *Backend) list(ctx context.Context, family policy.Family, table, chain string) ([]rule, error) {
	return call(ctx, b, family, func(t *goiptables.IPTables) ([]rule, error) {
		lines, err := t.List(table, chain)
		return parseChains(strings.Join(lines, "\n"))[chain], err
	})
}
