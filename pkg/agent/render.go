package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"sigs.k8s.io/yaml"

	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
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
	addresses, err := node.SourceAddresses(inForce, records)
	if err != nil {
		return err
	}
	state := ruleset.Build(inForce, records, ruleset.Node{Addresses: addresses, OptedOut: n.Exempt(inForce.Settings)})
	return p.print(o, state, func() { _, _ = fmt.Fprint(p.Stdout, registry.Render(o.Backend, decision.Kind, state)) })
}

func printFindings(to io.Writer, findings []config.Finding) {
	for _, finding := range findings {
		_, _ = fmt.Fprintln(to, finding)
	}
}

// print writes a document in the format that was asked for.
func (p Program) print(o Options, document any, asText func()) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if o.Format == formatText {
		asText()
		return nil
	}
	err := encoder.Encode(document)
	out := text.Bytes()
	if err == nil && o.Format == formatYAML {
		out, err = yaml.JSONToYAML(out)
	}
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	_, _ = p.Stdout.Write(out)
	return nil
}
