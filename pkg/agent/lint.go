package agent

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ranges"
	"github.com/ip-masq/ip-masq-cni/pkg/status"
)

// lintReport is what lint prints for programs.
type lintReport struct {
	APIVersion string           `json:"apiVersion"`
	Findings   []config.Finding `json:"findings"`
	Policy     *policy.Policy   `json:"policy"` // nil where the file has errors
}

// lint prints every finding of a file, and without an error what the file puts in force. Exit status 1 means errors.
func (p Program) lint(o Options, args []string) error {
	loaded, findings, err := p.lintFile(o, args[0])
	var inForce *policy.Policy
	if err == nil {
		accepted := loaded.Policy()
		inForce = &accepted
	}
	printErr := p.print(o, lintReport{status.APIVersion, append([]config.Finding{}, findings...), inForce}, func() {
		printFindings(p.Stdout, findings)
		if inForce != nil {
			_, _ = fmt.Fprintf(p.Stdout, "%s: ok: %s\n", args[0], summary(*inForce, loaded.ResyncInterval))
		}
	})
	if printErr != nil {
		return printErr
	}
	if err != nil {
		return cli.Exit(cli.StatusFailure)
	}
	return nil
}

// lintFile checks a file, a directory, or what is on stdin. The ranges that should keep their source are what this node knows
// of, and what the flags say.
func (p Program) lintFile(o Options, path string) (config.Config, []config.Finding, error) {
	known, err := ranges.Find(o.Cache.ConfDir, o.Settings.IPv6)
	if err != nil {
		_, _ = fmt.Fprintf(p.Stderr, "ip-masq-agent: not every range of this node is known: %v\n", err)
	}
	known = append(o.Ranges, known...)
	if path == "-" {
		data, err := io.ReadAll(os.Stdin)
		if err != nil {
			return config.Config{}, nil, fmt.Errorf("read stdin: %w", err)
		}
		return config.LintText(path, data, o.Config, known)
	}
	o.Config.Path, o.Config.AllowDir, o.Config.Required = path, true, true
	return config.Lint(o.Config, known)
}

// summary says what a policy does, in one line.
func summary(p policy.Policy, resync time.Duration) string {
	var parts []string
	for _, verdict := range []policy.Verdict{policy.Keep, policy.Masquerade} {
		var prefixes []string
		for _, family := range p.Settings.Families() {
			for _, d := range p.Destinations(family) {
				if d.Verdict == verdict {
					prefixes = append(prefixes, d.Prefix.String())
				}
			}
		}
		if len(prefixes) > 0 {
			parts = append(parts, string(verdict)+" "+enumerate(prefixes))
		}
	}
	for _, e := range p.Egress {
		group := fmt.Sprintf("translate %s to the node's addresses in %s", enumerate(texts(e.Destinations)), enumerate(texts(e.SourceAddresses)))
		if e.WhenMissing == policy.MissingDrop {
			group += ", or drop"
		}
		parts = append(parts, group)
	}
	parts = append(parts, "masquerade every other destination")
	parts = append(parts, scope(p)...)
	return strings.Join(append(parts, "resync every "+resync.String()), "; ")
}

// scope says what is not the default of whom and where a policy concerns, and of how it masquerades.
func scope(p policy.Policy) (parts []string) {
	add := func(is bool, text string) {
		if is {
			parts = append(parts, text)
		}
	}
	s := p.Settings
	add(len(p.OutputInterfaces) > 0, "only what leaves through "+strings.Join(p.OutputInterfaces, ", "))
	add(s.Sources == policy.SourcesAll, "of all sources")
	add(s.NodeTraffic, "of what is no pod's, too")
	add(s.AutoPorts, "source ports clear of the node's others")
	add(len(s.ToPorts) > 0, "source ports "+s.ToPorts.String())
	add(!s.RandomFully, "source ports in order")
	add(s.PodAnnotations != "", "annotations of pods: "+string(s.PodAnnotations))
	return parts
}

func texts(prefixes []netip.Prefix) (all []string) {
	for _, prefix := range prefixes {
		all = append(all, prefix.String())
	}
	return all
}

// enumerated bounds how many prefixes one line names.
const enumerated = 10

func enumerate(names []string) string {
	if more := len(names) - enumerated; more > 0 {
		names = append(names[:enumerated:enumerated], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}
