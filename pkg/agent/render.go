package agent

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// render prints the desired state: what `sync` would apply with the same flags, in the words of the backend in use. It reads
// files only.
func (p Program) render(o Options, _ []string) error {
	n := newNode(o, discard())
	source := p.commandSource(o, n)
	inForce, err := source.load()
	printFindings(p.Stderr, source.findings)
	if err != nil {
		return cli.Exit(cli.StatusFailure)
	}
	records, err := n.Records()
	if err != nil {
		return err
	}
	decision, ok := n.Decision()
	if ok && decision.Kind != "" {
		inForce.Settings.RandomFully = inForce.Settings.RandomFully && decision.Features.RandomFully
	}
	state := ruleset.Build(inForce, records, nil)
	if o.Format == "json" {
		return p.printJSON(state)
	}
	_, _ = fmt.Fprint(p.Stdout, registry.Render(o.Backend, decision.Kind, state))
	return nil
}

func printFindings(to io.Writer, findings []config.Finding) {
	for _, finding := range findings {
		_, _ = fmt.Fprintln(to, finding)
	}
}

func (p Program) printJSON(document any) error {
	encoder := json.NewEncoder(p.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(document); err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	return nil
}
