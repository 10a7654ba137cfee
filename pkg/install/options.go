package install

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// The default places on a node. The state directories are those of package node, which would link the backends.
const (
	defaultBinDir   = "/opt/cni/bin"
	defaultConfDir  = "/etc/cni/net.d"
	defaultCacheDir = "/var/lib/cni"
	defaultStateDir = "/run/ip-masq-agent"
	defaultDataDir  = "/var/lib/ip-masq-agent"
)

// DefaultMetricsAddress is the port after the agent's, on loopback too.
const DefaultMetricsAddress = "127.0.0.1:10279"

// pluginType is our type in a conflist, and the binary's name: the runtime looks for the one by the other.
const pluginType = "ip-masq"

// Options are the flags.
type Options struct {
	BinDir, ConfDir, CacheDir string
	StateDir, DataDir         string
	SourceDir                 string
	ConfFile                  string
	Entry                     []byte // nil: the default, or what is there
	AllowIPMasq               bool
	DryRun                    bool
	MetricsAddress            string
}

type flags struct {
	Options
	*flag.FlagSet
	entry   string
	version bool
}

// newFlags registers what all commands take, so that one list of paths serves a node's install, watch and uninstall.
func newFlags(name string) *flags {
	f := &flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError)}
	f.StringVar(&f.BinDir, "cni-bin-dir", defaultBinDir, "`directory` where the runtime looks for plugins")
	f.StringVar(&f.ConfDir, "cni-conf-dir", defaultConfDir, "`directory` where the runtime looks for networks")
	f.StringVar(&f.CacheDir, "cni-cache-dir", defaultCacheDir, "`directory` whose results/ holds the runtime's attachments")
	f.StringVar(&f.StateDir, "state-dir", defaultStateDir, "`directory` for the lock of watch; may be missing")
	f.StringVar(&f.DataDir, "data-dir", defaultDataDir, "`directory` of the agent's policy; the installer keeps nothing there")
	f.StringVar(&f.SourceDir, "source-dir", "", "`directory` that holds the plugin to copy (default: the installer's own)")
	f.StringVar(&f.ConfFile, "conf-file", "", "`name` of the file in --cni-conf-dir to edit (default: the one that the runtime loads)")
	f.StringVar(&f.entry, "entry", "", "our whole entry, as `JSON` (default: the one that is there, or "+defaultEntry+")")
	f.BoolVar(&f.AllowIPMasq, "allow-ipmasq", false, "accept a list whose main plugin masquerades by itself")
	f.BoolVar(&f.version, "version", false, "print the version")
	return f
}

func (f *flags) dryRun() *flags {
	f.BoolVar(&f.DryRun, "dry-run", false, "print a diff of what would be done; nothing is touched")
	return f
}

func (f *flags) metrics() *flags {
	f.StringVar(&f.MetricsAddress, "metrics-bind-address", DefaultMetricsAddress, "`address` for /readyz, /livez, /healthz and /metrics; empty serves nothing")
	return f
}

// parse takes the flags and checks them, so that a mistake is told before anything is looked at.
func (f *flags) parse(args []string) error {
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%s takes flags only, not %q", f.Name(), f.Args())
	}
	return errors.Join(f.takeDirs(), f.takeConfFile(), f.takeEntry(), validAddress(f.MetricsAddress))
}

func (f *flags) takeDirs() error {
	if f.SourceDir == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("--source-dir: %w", err)
		}
		f.SourceDir = filepath.Dir(self)
	}
	for name, dir := range map[string]*string{
		"cni-bin-dir": &f.BinDir, "cni-conf-dir": &f.ConfDir, "cni-cache-dir": &f.CacheDir,
		"state-dir": &f.StateDir, "data-dir": &f.DataDir, "source-dir": &f.SourceDir,
	} {
		if *dir == "" {
			return fmt.Errorf("--%s: want a directory", name)
		}
		absolute, err := filepath.Abs(*dir)
		if err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
		*dir = absolute
	}
	return nil
}

func (f *flags) takeConfFile() error {
	name := f.ConfFile
	if name == "" {
		return nil
	}
	if name != filepath.Base(name) {
		return fmt.Errorf("--conf-file %q: want the name of a file in --cni-conf-dir, without a directory", name)
	}
	if !slices.Contains(loadable, filepath.Ext(name)) {
		return fmt.Errorf("--conf-file %q: runtimes load only names that end in one of %v", name, loadable)
	}
	return nil
}

func (f *flags) takeEntry() error {
	given := false
	f.Visit(func(g *flag.Flag) { given = given || g.Name == "entry" })
	if !given {
		return nil
	}
	var entry pluginConf
	if err := json.Unmarshal([]byte(f.entry), &entry); err != nil {
		return fmt.Errorf("--entry: %w", err)
	}
	if entry.Type != pluginType {
		return fmt.Errorf("--entry: want an object with \"type\": %q", pluginType)
	}
	f.Entry = trim([]byte(f.entry))
	return nil
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
