package agent

import (
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/cnicache"
	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/flows"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// DefaultMetricsAddress serves the probes on loopback, so that nothing of the agent's can be reached from outside.
const DefaultMetricsAddress = "127.0.0.1:10278"

// Options are the flags, those of the Kubernetes agent first.
type Options struct {
	Settings       policy.Settings
	Config         config.Options
	Backend        registry.Choice
	HostRoot       registry.Host
	StateDir       string
	DataDir        string
	Cache          cnicache.Cache
	Flows          flows.Mode
	MetricsAddress string
	Format         string
	Source         netip.Addr
	Destination    netip.Addr
	OwnSettings    bool // a flag of the kernel's group was given
	Verbosity      int
}

// flags registers the options on a set. What takes parsing is parsed by finish, so that the error can name the flag.
type flags struct {
	Options
	*flag.FlagSet
	toPorts, sources, backend, hostRoot, flush, src, dst string
	strict                                               bool
}

func newFlags(name string) *flags {
	f := &flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError), Options: Options{Settings: policy.DefaultSettings()}}
	f.BoolVar(&f.Config.AllReserved, "nomasq-all-reserved-ranges", false, "also keep the pod's address to the other reserved ranges (RFC 5735) where the IPv4 defaults are in force")
	f.BoolVar(&f.Settings.IPv6, "enable-ipv6", false, "masquerade IPv6 too")
	f.BoolVar(&f.strict, "strict-config", true, "refuse unknown, misspelt and repeated keys instead of warning of them")
	return f
}

// kernel adds the flags that decide what the rules look like, the file among them.
func (f *flags) kernel() *flags {
	f.StringVar(&f.Config.Path, "config", config.DefaultPath, "configuration `file`, or a directory whose ip-masq* files are merged")
	f.StringVar(&f.Settings.Chain, "masq-chain", policy.DefaultChain, "`name` of the shared chain, 23 characters at most")
	f.BoolVar(&f.Settings.RandomFully, "random-fully", true, "pick source ports at random, where the host supports it")
	f.StringVar(&f.toPorts, "to-ports", "", "source port `ranges` of masqueraded connections, such as 1024-29999,32768-65535 (default: the kernel's choice)")
	f.StringVar(&f.sources, "sources", string(policy.SourcesPods), "`whose` traffic is masqueraded: pods, or all as the Kubernetes agent does")
	f.StringVar(&f.backend, "backend", string(registry.Auto), fmt.Sprintf("`kind` of rules, one of %v", registry.Choices()))
	f.StringVar(&f.hostRoot, "host-root", "", "`directory` at which the host's root is mounted, for a container without iptables of its own: the host's is run in it")
	f.StringVar(&f.StateDir, "state-dir", node.DefaultStateDir, "`directory` for what is lost at reboot: records, lock, chosen backend")
	f.StringVar(&f.DataDir, "data-dir", node.DefaultDataDir, "`directory` for what is kept: the last good policy")
	return f
}

// places adds the runtime's directories.
func (f *flags) places() *flags {
	f.StringVar(&f.Cache.Dir, "cni-cache-dir", cnicache.DefaultCacheDir, "the runtime's CNI cache `directory`, in which pods are found that are not on record")
	f.StringVar(&f.Cache.ConfDir, "cni-conf-dir", cnicache.DefaultConfDir, "`directory` of the conflists, which say which networks are ours")
	return f
}

// syncing adds the flags of what a sync does beside the rules.
func (f *flags) syncing() *flags {
	f.places()
	f.StringVar(&f.flush, "conntrack-flush", string(flows.Changed), "`which` connections to end when the policy changes their verdict: changed, udp or none")
	f.logging()
	return f
}

func (f *flags) daemon() *flags {
	f.StringVar(&f.MetricsAddress, "metrics-bind-address", DefaultMetricsAddress, "`address` for /livez, /healthz and /readyz; empty serves nothing")
	return f
}

// logging takes the verbosity, and the logging flags that manifests of the Kubernetes agent carry; the log goes to stderr
// whatever those say.
func (f *flags) logging() {
	f.IntVar(&f.Verbosity, "v", 0, "log `level`: from 4 on, also what did not change")
	for _, name := range klogSwitches {
		f.Bool(name, false, ignored)
	}
	for _, name := range klogValues {
		f.String(name, "", ignored)
	}
}

// The flags of klog, which the Kubernetes agent takes. --help does not list what is ignored.
var (
	klogSwitches = []string{"logtostderr", "alsologtostderr", "one_output", "skip_headers", "skip_log_headers", "add_dir_header", "legacy_stderr_threshold_behavior"}
	klogValues   = []string{"stderrthreshold", "alsologtostderrthreshold", "vmodule", "log_backtrace_at", "log_dir", "log_file", "log_file_max_size"}
)

const ignored = "accepted and ignored"

// packet adds what explain asks about.
func (f *flags) packet() *flags {
	f.StringVar(&f.src, "src", "", "`address` of the pod")
	f.StringVar(&f.dst, "dst", "", "`address` that it talks to")
	return f
}

func (f *flags) output() *flags {
	f.StringVar(&f.Format, "output", "text", "`format`: text or json")
	return f
}

// notEmpty refuses flags that say nothing where something is needed, as an unset variable in a manifest makes them.
func (f *flags) notEmpty() error {
	var empty error
	f.Visit(func(g *flag.Flag) {
		if g.Value.String() == "" && slices.Contains(neverEmpty, g.Name) {
			empty = fmt.Errorf("--%s is empty: give it a value, or leave it out for %s", g.Name, g.DefValue)
		}
	})
	return empty
}

var neverEmpty = []string{"config", "state-dir", "data-dir", "cni-cache-dir", "cni-conf-dir", "sources", "conntrack-flush", "output"}

// finish checks what parse took. Positional arguments are the caller's.
func (f *flags) finish() error {
	err := f.notEmpty()
	if err != nil {
		return err
	}
	if f.Format != "" && f.Format != "text" && f.Format != "json" {
		return fmt.Errorf("--output %q: want text or json", f.Format)
	}
	f.Config.EnableIPv6, f.Config.Lenient = f.Settings.IPv6, !f.strict
	f.Visit(func(g *flag.Flag) {
		f.Config.AllowDir = f.Config.AllowDir || g.Name == "config"
		f.OwnSettings = f.OwnSettings || slices.Contains(settingsFlags, g.Name)
	})
	if f.Lookup("src") != nil {
		if err := f.endpoints(); err != nil {
			return err
		}
	}
	if f.Settings.ToPorts, err = policy.ParsePortRanges(f.toPorts); err != nil {
		return fmt.Errorf("--to-ports: %w", err)
	}
	if f.Backend, err = registry.ParseChoice(f.backend); err != nil {
		return fmt.Errorf("--backend: %w", err)
	}
	if f.flush != "" {
		if f.Flows, err = flows.ParseMode(f.flush); err != nil {
			return fmt.Errorf("--conntrack-flush: %w", err)
		}
	}
	if f.sources != "" {
		if f.Settings.Sources, err = policy.ParseSources(f.sources); err != nil {
			return fmt.Errorf("--sources: %w", err)
		}
	}
	if err := policy.ValidateChain(f.Settings.Chain); err != nil {
		return fmt.Errorf("--masq-chain: %w", err)
	}
	if f.HostRoot, err = hostRoot(f.hostRoot); err != nil {
		return err
	}
	return validAddress(f.MetricsAddress)
}

// settingsFlags are those that end up in policy.Settings.
var settingsFlags = []string{"masq-chain", "sources", "enable-ipv6", "random-fully", "to-ports"}

// endpoints parses the two addresses, which must be of one family.
func (f *flags) endpoints() error {
	var err1, err2 error
	f.Source, err1 = netip.ParseAddr(f.src)
	f.Destination, err2 = netip.ParseAddr(f.dst)
	f.Source, f.Destination = f.Source.Unmap(), f.Destination.Unmap()
	if err1 != nil || err2 != nil || f.Source.Is4() != f.Destination.Is4() {
		return fmt.Errorf("--src %q --dst %q: want two addresses of one family", f.src, f.dst)
	}
	return nil
}

// hostRoot checks the place once: a missing mount would otherwise look like a host without iptables.
func hostRoot(dir string) (registry.Host, error) {
	if dir == "" || dir == "/" {
		return "", nil
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", fmt.Errorf("--host-root %q: not a directory; mount the host's root there", dir)
	}
	return registry.Host(dir), nil
}

func validAddress(address string) error {
	if address == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("--metrics-bind-address %q: want HOST:PORT, such as %s", address, DefaultMetricsAddress)
	}
	return nil
}

// parse reads flags wherever they stand and returns the positional arguments.
func (f *flags) parse(args []string) ([]string, error) {
	var positional []string
	for {
		if err := f.Parse(args); err != nil {
			return nil, err
		}
		if f.NArg() == 0 {
			return positional, f.finish()
		}
		positional = append(positional, f.Arg(0))
		args = f.Args()[1:]
	}
}
