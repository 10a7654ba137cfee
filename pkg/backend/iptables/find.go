package iptables

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// tool is the pair of programs of one variant and family.
type tool struct {
	command string
	restore string
}

// systemDirs are searched after PATH: a runtime may start plugins with a PATH that has no sbin.
var systemDirs = []string{"/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"}

// find looks for the programs that name the variant (iptables-nft), then for plain ones of that flavour. The plain name alone
// would follow whatever the host's alternatives say at that moment.
func find(kind backend.Kind, family policy.Family) (tool, error) {
	plain := "iptables"
	if family == policy.IPv6 {
		plain = "ip6tables"
	}
	suffix := strings.TrimPrefix(string(kind), "iptables")
	if t, ok := pair(plain + suffix); ok {
		return t, nil
	}
	if t, ok := pair(plain); ok && flavour(t.command) == kind {
		return t, nil
	}
	return tool{}, fmt.Errorf("%w: no %s%s with its -restore in PATH (%s) or in %s: install iptables",
		backend.ErrUnavailable, plain, suffix, os.Getenv("PATH"), strings.Join(systemDirs, ", "))
}

// Installed reports whether the programs of a variant are there for the family. It starts no process unless only plain names
// are there and their links do not tell the flavour.
func Installed(kind backend.Kind, family policy.Family) error {
	_, err := find(kind, family)
	return err
}

// HostFlavour returns the variant that the host's plain iptables is.
func HostFlavour() (backend.Kind, bool) {
	t, ok := pair("iptables")
	if !ok {
		return "", false
	}
	return flavour(t.command), true
}

// pair finds a program and its -restore side by side in the search path.
func pair(name string) (tool, bool) {
	command, ok1 := lookPath(name)
	restore, ok2 := lookPath(name + "-restore")
	return tool{command, restore}, ok1 && ok2
}

func lookPath(name string) (string, bool) {
	if path, err := exec.LookPath(name); err == nil {
		return path, true
	}
	for _, dir := range systemDirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return path, true
		}
	}
	return "", false
}

// versionTimeout bounds `iptables --version`, which should take a millisecond.
const versionTimeout = 2 * time.Second

// flavour tells a plain iptables' variant by the program that its links end at, or asks it.
func flavour(path string) backend.Kind {
	target, err := filepath.EvalSymlinks(path)
	base := filepath.Base(target)
	switch {
	case err == nil && strings.Contains(base, "nft"):
		return backend.IPTablesNFT
	case err == nil && strings.Contains(base, "legacy"):
		return backend.IPTablesLegacy
	}
	ctx, cancel := context.WithTimeout(context.Background(), versionTimeout)
	defer cancel()
	out, err := run(ctx, path, []string{"--version"}, "")
	if err == nil && strings.Contains(out, "(nf_tables)") {
		return backend.IPTablesNFT
	}
	return backend.IPTablesLegacy
}

// killDelay is how long a program may take to end after it was killed before its pipes are closed.
const killDelay = time.Second

func command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = killDelay
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
