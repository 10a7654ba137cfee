package agent

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/ip-masq/ip-masq-cni/pkg/autoports"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/cnicache"
	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/explain"
	"github.com/ip-masq/ip-masq-cni/pkg/flows"
	"github.com/ip-masq/ip-masq-cni/pkg/paths"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/translog"
)

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
	Logging        cli.Logging
	BinDir         string
	DryRun         bool
	Watch          bool
	Wait           bool // uninstall waits until no pod names the plugin
	Format         string
	Question       explain.Question // of explain
	asked          url.Values       // the same for the daemon
	Ranges         []config.Range   // that should keep their source, by flags of lint

	given        []string          // names of the flags on the command line
	values       map[string]string // of the policyFlags that the command has, by name
	Who          translog.Query    // for who
	Translations translog.Options
}

// Given reports whether a flag is on the command line.
func (o Options) Given(name string) bool { return slices.Contains(o.given, name) }

// policyFlags decide what the rules look like, and are the daemon's own where one runs.
var policyFlags = []string{
	"config", "strict-config", "masq-chain", "sources", "enable-ipv6", "random-fully", "to-ports", "service-node-port-range", "nomasq-all-reserved-ranges", "backend", "conntrack-flush",
}

// differing names the policyFlags of the command line whose values are not the daemon's.
func (o Options) differing(daemon map[string]string) string {
	var names []string
	for _, name := range policyFlags {
		if o.Given(name) && o.values[name] != daemon[name] {
			names = append(names, "--"+name)
		}
	}
	return strings.Join(names, ", ")
}

// flags registers the options of one command.
type flags struct {
	Options
	set    *pflag.FlagSet
	strict bool

	toPorts toPorts

	src, dst, proto string

	at      string // of who
	logSize int    // MiB
}

func newFlags(set *pflag.FlagSet) *flags {
	f := &flags{set: set, Options: Options{Settings: policy.DefaultSettings()}, logSize: defaultLogSize}
	set.BoolVar(&f.Config.AllReserved, "nomasq-all-reserved-ranges", false, "also keep the pod's address to the other reserved ranges (RFC 5735) where the IPv4 defaults are in force")
	set.BoolVar(&f.Settings.IPv6, "enable-ipv6", false, "masquerade IPv6 too")
	set.BoolVar(&f.strict, "strict-config", true, "refuse unknown, misspelt and repeated keys instead of warning of them")
	return f
}

// toPorts is the value of --to-ports.
type toPorts struct {
	ranges policy.PortRanges
	auto   bool
}

// settings adds the flags that win over keys of the file.
func (f *flags) settings() *flags {
	f.set.BoolVar(&f.Settings.RandomFully, "random-fully", true, "pick source ports at random, where the host supports it; wins over the file's randomFully")
	cli.Parsed(f.set, &f.toPorts, "to-ports", "", "source port `ranges` of masqueraded connections, such as 1024-29999,61000-65535, or auto for those that nothing else on the node uses; wins over the file's toPorts (default: the kernel's choice)",
		func(text string) (p toPorts, err error) {
			p.ranges, p.auto, err = policy.ParseToPorts(text)
			return p, err
		})
	cli.Parsed(f.set, &f.Settings.Sources, "sources", string(policy.SourcesPods), "`whose` traffic is masqueraded: pods, or all as the Kubernetes agent does; wins over the file's sources", policy.ParseSources)
	cli.Parsed(f.set, &f.Config.NodePorts, "service-node-port-range", autoports.DefaultNodePorts, "`range` of the node ports of Services, as the API server has it, of which to-ports auto keeps clear", policy.ParsePortRange)
	return f
}

// kernel adds the flags that decide what the rules look like, the file among them.
func (f *flags) kernel() *flags {
	cli.Text(f.set, &f.Config.Path, "config", paths.ConfigFile, "configuration `file`, or a directory whose ip-masq* files are merged; another path than the default has to exist")
	cli.Parsed(f.set, &f.Settings.Chain, "masq-chain", policy.DefaultChain, "`name` of the shared chain, 23 characters at most", parseChain)
	f.settings()
	cli.Parsed(f.set, &f.Backend, "backend", string(registry.Auto), fmt.Sprintf("`kind` of rules, one of %v", registry.Choices()), registry.ParseChoice)
	cli.Parsed(f.set, &f.HostRoot, "host-root", "", "`directory` at which the host's root is mounted, for a container without iptables of its own: the host's is run in it", parseHostRoot)
	cli.Text(f.set, &f.StateDir, "state-dir", paths.StateDir, "`directory` for what is lost at reboot: records, lock, chosen backend")
	cli.Text(f.set, &f.DataDir, "data-dir", paths.DataDir, "`directory` for what is kept: the last good policy")
	return f
}

// places adds the runtime's directories.
func (f *flags) places() *flags {
	cli.Text(f.set, &f.Cache.Dir, "cni-cache-dir", paths.CNICacheDir, "the runtime's CNI cache `directory`, in which pods are found that are not on record")
	cli.Text(f.set, &f.Cache.ConfDir, "cni-conf-dir", paths.CNIConfDir, "`directory` of the conflists, which say which networks have the plugin ip-masq")
	cli.Text(f.set, &f.BinDir, "cni-bin-dir", paths.CNIBinDir, "`directory` of the runtime's plugins, in which status and check ask ip-masq for its version; under --host-root by default")
	return f
}

// syncing adds the flags of what a sync does beside the rules.
func (f *flags) syncing() *flags {
	f.places()
	cli.Parsed(f.set, &f.Flows, "conntrack-flush", string(flows.Changed), "`which` connections to end when the policy changes their verdict: changed, udp or none", flows.ParseMode)
	f.Logging.Register(f.set)
	return f
}

func (f *flags) daemon() *flags {
	cli.Address(f.set, &f.MetricsAddress, "metrics-bind-address", paths.AgentAddress, "`address` for /livez, /healthz, /readyz and /metrics; empty serves nothing")
	f.translationFile()
	f.set.BoolVar(&f.Translations.Starts, "translation-log-starts", false, "log the start of a connection, too")
	f.set.IntVar(&f.logSize, "translation-log-max-size", defaultLogSize, "begin another file when the log has so many `MiB`")
	f.set.Func("translation-log-exclude", "`prefix` of destinations that are not logged; may be given several times", func(text string) error {
		prefix, err := netip.ParsePrefix(text)
		if err != nil || prefix != prefix.Masked() {
			return fmt.Errorf("want a prefix without host bits, such as 198.51.100.0/24")
		}
		f.Translations.Exclude = append(f.Translations.Exclude, prefix)
		return nil
	})
	return f
}

// The bounds of the translation log.
const (
	defaultLogSize  = 100
	defaultLogFiles = 5
	maxLogSize      = 1 << 20 // 1 TiB
)

// translationFile adds the flags by which a translation log is found.
func (f *flags) translationFile() *flags {
	f.set.StringVar(&f.Translations.Path, "translation-log", "", "`file` with one JSON line for each masqueraded connection of a pod at its end, - for stdout; empty writes none")
	f.set.IntVar(&f.Translations.MaxFiles, "translation-log-max-files", defaultLogFiles, "keep so many `files` of the log")
	return f
}

// connection adds what who asks about.
func (f *flags) connection() *flags {
	f.set.StringVar(&f.Who.Proto, "proto", "", "`protocol` of the connection, such as tcp or udp (default: any)")
	f.set.StringVar(&f.dst, "dst", "", "`address` that the connection goes to, with or without :PORT (default: any)")
	f.set.StringVar(&f.at, "at", "", "`time` at which it was open, as 2026-01-31T12:00:00Z (default: now, and otherwise the last that was logged)")
	return f
}

func (f *flags) dryRun() *flags {
	f.set.BoolVar(&f.DryRun, "dry-run", false, "print what would be removed; nothing is touched")
	return f
}

// leaving adds what uninstall needs beside the daemon's flags.
func (f *flags) leaving() *flags {
	f.set.BoolVar(&f.Wait, "wait", true, "wait until no pod names the plugin; false removes rules and records at once, and the plugin when its last pod is gone")
	return f
}

// packet adds what explain asks about.
func (f *flags) packet() *flags {
	f.set.StringVar(&f.src, "src", "", "`pod`: its address, or NAMESPACE/NAME")
	f.set.StringVar(&f.dst, "dst", "", "`address` that it talks to, with or without a port, such as 192.0.2.7:443")
	f.set.StringVar(&f.proto, "proto", "", fmt.Sprintf("`protocol`, where rules may depend on it: one of %s", strings.Join(explain.Protocols(), ", ")))
	return f
}

// ranges adds the parts of the cluster that the node of lint may not know.
func (f *flags) ranges() *flags {
	cli.Text(f.set, &f.Cache.ConfDir, "cni-conf-dir", paths.CNIConfDir, "`directory` of the conflists, which have this node's pod ranges")
	for name, kind := range map[string]string{"pod-cidr": "pod range", "service-cidr": "service range"} {
		f.set.Func(name, "`prefix` of a "+kind+", whose packets should keep their source; may be given several times", func(text string) error {
			prefix, err := netip.ParsePrefix(text)
			if err != nil || prefix != prefix.Masked() {
				return fmt.Errorf("want a prefix without host bits, such as 10.244.0.0/16")
			}
			f.Ranges = append(f.Ranges, config.Range{Prefix: prefix, Name: kind + " of --" + name})
			return nil
		})
	}
	return f
}

// The formats of what commands print.
const (
	formatText = "text"
	formatJSON = "json"
	formatYAML = "yaml"
)

func (f *flags) output() *flags {
	cli.OneOf(f.set, &f.Format, "output", "`format`: text, json or yaml", formatText, formatJSON, formatYAML)
	return f
}

func (f *flags) watching() *flags {
	f.set.BoolVar(&f.Watch, "watch", false, "show it again every two seconds")
	return f
}

// finish is for what depends on several flags.
func (f *flags) finish() error {
	f.set.Visit(func(g *pflag.Flag) { f.given = append(f.given, g.Name) })
	f.values = map[string]string{}
	for _, name := range policyFlags {
		if known := f.set.Lookup(name); known != nil {
			f.values[name] = known.Value.String()
		}
	}
	f.Config.EnableIPv6, f.Config.Lenient = f.Settings.IPv6, !f.strict
	f.Settings.ToPorts, f.Settings.AutoPorts = f.toPorts.ranges, f.toPorts.auto
	if f.Given("service-node-port-range") {
		f.Settings.NodePorts = f.Config.NodePorts
	}
	for _, name := range config.SettingFlags() {
		if f.Given(name) {
			f.Config.Given = append(f.Config.Given, name)
		}
	}
	f.Config.Settings = f.Settings
	f.Config.AllowDir = f.Given("config")
	f.Config.Required = f.Config.Path != paths.ConfigFile // the ConfigMap at the default path is optional, as it is for the Kubernetes agent
	if f.HostRoot != "" && !f.Given("cni-bin-dir") {
		f.BinDir = filepath.Join(string(f.HostRoot), paths.CNIBinDir)
	}
	if err := f.translations(); err != nil {
		return err
	}
	if f.set.Lookup("at") != nil {
		var err error
		f.Who.Dst, f.Who.DstPort, f.Who.At, err = parseWho(f.dst, f.at)
		return err
	}
	if f.set.Lookup("src") != nil {
		return f.question()
	}
	return nil
}

// translations checks the bounds of the translation log.
func (f *flags) translations() error {
	if f.set.Lookup("translation-log") == nil {
		return nil
	}
	if f.logSize < 1 || f.logSize > maxLogSize {
		return fmt.Errorf("--translation-log-max-size %d: want a number of MiB between 1 and %d", f.logSize, maxLogSize)
	}
	if f.Translations.MaxFiles < 1 || f.Translations.MaxFiles > 1000 {
		return fmt.Errorf("--translation-log-max-files %d: want a number of files between 1 and 1000", f.Translations.MaxFiles)
	}
	f.Translations.MaxSize = int64(f.logSize) << 20
	return nil
}

// question parses what explain is asked.
func (f *flags) question() (err error) {
	f.Question, err = explain.Parse(f.src, f.dst, f.proto)
	f.asked = asked(f.src, f.dst, f.proto)
	return err
}

func parseChain(name string) (string, error) { return name, policy.ValidateChain(name) }

// parseHostRoot checks the place once: a missing mount would otherwise look like a host without iptables.
func parseHostRoot(dir string) (registry.Host, error) {
	if dir == "" || dir == "/" {
		return "", nil
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", fmt.Errorf("%s is not a directory; mount the host's root there", dir)
	}
	return registry.Host(dir), nil
}
