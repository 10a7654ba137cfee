package iptables

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Host is the root directory whose iptables is used: empty for our own, or where the host's is mounted in a container that
// has no iptables of its own. Using the host's own programs is what keeps the agent and the host from disagreeing about rules.
type Host string

// Installed reports whether the programs of a variant are there for the family, and start. It starts one process.
func (h Host) Installed(kind backend.Kind, family policy.Family) error {
	ctx, cancel := context.WithTimeout(context.Background(), versionTimeout)
	defer cancel()
	_, err := call(ctx, New(kind, h), family, func(tables) (bool, error) { return true, nil })
	return err
}

// Flavour returns the variant that the host's plain iptables is.
func (h Host) Flavour() (backend.Kind, bool) {
	found, ok := h.pair("iptables")
	if !ok {
		return "", false
	}
	kind, err := h.flavour(found.command)
	return kind, err == nil
}

// List returns the rules of one chain, of any owner, each as its arguments after the chain's name, with -c PACKETS BYTES among
// them. It writes nothing: a table
// that nobody has used yet is not made by looking, and has no rules. A chain that is not there is an *ExitError of status 1.
func (h Host) List(ctx context.Context, kind backend.Kind, family policy.Family, table, chain string) ([][]string, error) {
	if untouched(kind, family, table) {
		return nil, nil
	}
	listed, err := New(kind, h).list(ctx, family, table, chain)
	if err != nil {
		return nil, fmt.Errorf("list %s chain %s: %w", family, chain, err)
	}
	rules := make([][]string, len(listed))
	for i, r := range listed {
		rules[i] = r
	}
	return rules, nil
}

// programs are the pair of one variant and family, as paths inside the host's root.
type programs struct {
	command string
	restore string
}

// systemDirs are searched after PATH: a runtime may start plugins with a PATH that has no sbin.
var systemDirs = []string{"/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"}

// find looks for the programs that name the variant (iptables-nft), then for plain ones of that flavour. The plain name alone
// would follow whatever the host's alternatives say at that moment.
func (h Host) find(kind backend.Kind, family policy.Family) (programs, error) {
	plain := "iptables"
	if family == policy.IPv6 {
		plain = "ip6tables"
	}
	suffix := strings.TrimPrefix(string(kind), "iptables")
	if found, ok := h.pair(plain + suffix); ok {
		return found, nil
	}
	if found, ok := h.pair(plain); ok {
		if is, err := h.flavour(found.command); err != nil || is == kind {
			return found, err
		}
	}
	return programs{}, fmt.Errorf("%w: no %s%s with its -restore in PATH (%s) or in %s: install iptables",
		backend.ErrUnavailable, plain, suffix, os.Getenv("PATH"), strings.Join(systemDirs, ", "))
}

// pair finds a program and its -restore in the search path.
func (h Host) pair(name string) (programs, bool) {
	command, ok1 := h.lookPath(name)
	restore, ok2 := h.lookPath(name + "-restore")
	return programs{command, restore}, ok1 && ok2
}

func (h Host) lookPath(name string) (string, bool) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), systemDirs...) {
		path := filepath.Join(dir, name)
		if !filepath.IsAbs(path) {
			continue
		}
		if info, err := os.Stat(h.resolve(path)); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, true
		}
	}
	return "", false
}

// maxLinks bounds a chain of symbolic links, as the kernel does (path_resolution(7)).
const maxLinks = 40

// resolve follows a path's links inside the host's root: an absolute link in there does not start at ours.
func (h Host) resolve(path string) string {
	rest, resolved := strings.Split(path, "/"), "/"
	for links := 0; len(rest) > 0 && links < maxLinks; {
		next := filepath.Join(resolved, rest[0])
		rest = rest[1:]
		target, err := os.Readlink(filepath.Join(string(h), next))
		if err != nil {
			resolved = next
			continue
		}
		links++
		if filepath.IsAbs(target) {
			resolved = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return filepath.Join("/", string(h), resolved)
}

// versionTimeout bounds `iptables --version`, which should take a millisecond.
const versionTimeout = 2 * time.Second

// flavour tells a plain iptables' variant by the program that its links end at, or asks it: go-iptables reads it, too, but
// keeps it to itself. A program that could not answer, because it was killed say, has no variant.
func (h Host) flavour(path string) (backend.Kind, error) {
	switch base := filepath.Base(h.resolve(path)); {
	case strings.Contains(base, "nft"):
		return backend.IPTablesNFT, nil
	case strings.Contains(base, "legacy"):
		return backend.IPTablesLegacy, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), versionTimeout)
	defer cancel()
	out, err := h.run(ctx, path, []string{"--version"}, "")
	if err != nil {
		return "", classify(ctx, err)
	}
	if strings.Contains(out, "(nf_tables)") {
		return backend.IPTablesNFT, nil
	}
	return backend.IPTablesLegacy, nil
}

// waitInterval is the option that says how often to look for the xtables lock, and 100 ms in microseconds. Up to 1.8.7 legacy looks
// once a second, so that beside a busy agent or kube-proxy a pod waits a second for what took a millisecond, or in vain. It adds up
// the intervals, not the time: with shorter ones a busy machine would wait for longer than -w says, and than the caller does. From
// 1.8.8 on the kernel wakes it, and it complains of the option, but takes it (1.8.9 to 1.8.13 do).
const (
	waitInterval      = "--wait-interval"
	waitIntervalValue = "100000"
)

// wait are the options of a program that waits for the xtables lock, which iptables-nft has not.
func (b *Backend) wait(ctx context.Context) []string {
	wait := []string{"-w", fmt.Sprint(waitSeconds(ctx))}
	if b.kind == backend.IPTablesLegacy {
		wait = append(wait, waitInterval, waitIntervalValue)
	}
	return wait
}

// defaultWait is the longest wait for the xtables lock, in seconds, where the context sets no deadline.
const defaultWait = 5

// waitSeconds is the value for -w: it must run out before the context does, so that the program itself says who blocked.
func waitSeconds(ctx context.Context) int {
	wait := defaultWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, int(time.Until(deadline).Seconds())-1)
	}
	return max(wait, 1)
}
