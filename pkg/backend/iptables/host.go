package iptables

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Host is the root directory whose iptables is used: empty for our own, or where the host's is mounted in a container that
// has no iptables of its own. Using the host's own programs is what keeps the agent and the host from disagreeing about rules.
type Host string

// tool is the pair of programs of one variant and family, as paths inside the host's root.
type tool struct {
	command string
	restore string
}

// systemDirs are searched after PATH: a runtime may start plugins with a PATH that has no sbin.
var systemDirs = []string{"/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"}

// find looks for the programs that name the variant (iptables-nft), then for plain ones of that flavour. The plain name alone
// would follow whatever the host's alternatives say at that moment.
func (h Host) find(kind backend.Kind, family policy.Family) (tool, error) {
	plain := "iptables"
	if family == policy.IPv6 {
		plain = "ip6tables"
	}
	suffix := strings.TrimPrefix(string(kind), "iptables")
	if t, ok := h.pair(plain + suffix); ok {
		return t, nil
	}
	if t, ok := h.pair(plain); ok && h.flavour(t.command) == kind {
		return t, nil
	}
	return tool{}, fmt.Errorf("%w: no %s%s with its -restore in PATH (%s) or in %s: install iptables",
		backend.ErrUnavailable, plain, suffix, os.Getenv("PATH"), strings.Join(systemDirs, ", "))
}

// Installed reports whether the programs of a variant are there for the family. It starts no process unless only plain names
// are there and their links do not tell the flavour.
func (h Host) Installed(kind backend.Kind, family policy.Family) error {
	_, err := h.find(kind, family)
	return err
}

// Flavour returns the variant that the host's plain iptables is.
func (h Host) Flavour() (backend.Kind, bool) {
	t, ok := h.pair("iptables")
	if !ok {
		return "", false
	}
	return h.flavour(t.command), true
}

// List returns the rules of one chain, of any owner, each as its arguments after the chain's name. It writes nothing: a table
// that nobody has used yet is not made by looking, and has no rules.
func (h Host) List(ctx context.Context, kind backend.Kind, family policy.Family, table, chain string) ([][]string, error) {
	if kind == backend.IPTablesLegacy && !LegacyTable(family, table) {
		return nil, nil
	}
	programs, err := h.find(kind, family)
	if err != nil {
		return nil, err
	}
	out, err := h.run(ctx, programs.command, []string{"-w", waitSeconds(ctx), "-t", table, "-S", chain}, "")
	if err != nil {
		return nil, fmt.Errorf("list %s chain %s of table %s: %w", family, chain, table, err)
	}
	got := parseChains(out)
	rules := make([][]string, len(got[chain]))
	for i, r := range got[chain] {
		rules[i] = r
	}
	return rules, nil
}

// pair finds a program and its -restore side by side in the search path.
func (h Host) pair(name string) (tool, bool) {
	command, ok1 := h.lookPath(name)
	restore, ok2 := h.lookPath(name + "-restore")
	return tool{command, restore}, ok1 && ok2
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

// flavour tells a plain iptables' variant by the program that its links end at, or asks it.
func (h Host) flavour(path string) backend.Kind {
	base := filepath.Base(h.resolve(path))
	switch {
	case strings.Contains(base, "nft"):
		return backend.IPTablesNFT
	case strings.Contains(base, "legacy"):
		return backend.IPTablesLegacy
	}
	ctx, cancel := context.WithTimeout(context.Background(), versionTimeout)
	defer cancel()
	out, err := h.run(ctx, path, []string{"--version"}, "")
	if err == nil && strings.Contains(out, "(nf_tables)") {
		return backend.IPTablesNFT
	}
	return backend.IPTablesLegacy
}

func (h Host) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Chroot: string(h)}
	if h != "" {
		cmd.Dir = "/"
	}
	return cmd
}

// defaultWait is the longest wait for the xtables lock, in seconds, where the context sets no deadline.
const defaultWait = 5

// waitSeconds is the value for -w: it must run out before the context does, so that the program itself says who blocked.
func waitSeconds(ctx context.Context) string {
	wait := defaultWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, int(time.Until(deadline).Seconds())-1)
	}
	return strconv.Itoa(max(wait, 1))
}
