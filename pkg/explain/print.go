package explain

import (
	"fmt"
	"io"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Print writes the answer for people.
func (a Answer) Print(to io.Writer) {
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(to, format+"\n", args...) }
	switch {
	case !a.Daemon.Running:
		line("no daemon runs: this is read from the node and its kernel")
	case !a.Daemon.Responding:
		line("this is read from the node and its kernel, not by the daemon: it does not answer, or has other flags")
	}
	line("%s: %s: %s", a.packet(), a.Verdict, a.Reason)
	switch {
	case a.File != nil && a.Line != nil:
		line("config:     %s:%d (%s)", *a.File, *a.Line, *a.Key)
	case a.File != nil:
		line("config:     %s, the last good policy", *a.File)
	case a.Key != nil:
		line("config:     no line, the default of %s", *a.Key)
	}
	line("kernel:     %s", kernelTexts[a.Kernel])
	if a.Rule != nil {
		line("rule:       %s", *a.Rule)
		line("            %d packets, %d bytes", a.Counter.Packets, a.Counter.Bytes)
		if c := a.PrefixCounter; c != nil && *c != *a.Counter {
			line("            %d packets, %d bytes to %s", c.Packets, c.Bytes, a.Prefix)
		}
	}
	line("leaves by:  %s", a.way())
	for _, o := range a.Obstacles {
		line("obstacle:   %s: %s", o.What, o.Detail)
	}
}

var kernelTexts = map[Comparison]string{
	Equal:   "its rules do what the policy says",
	Differs: "its rules do not do what the policy says",
	Unknown: "it is not known whether its rules do what the policy says",
}

func (a Answer) packet() string {
	q := Question{Source: a.Source, Destination: a.Destination}
	if a.Port != nil {
		q.Port = *a.Port
	}
	if a.Protocol != nil {
		q.Protocol = *a.Protocol
	}
	text := q.String()
	if a.Pod != nil {
		text = a.Pod.String() + " " + text
	}
	return text
}

func (a Answer) way() string {
	text := "no interface"
	if a.Interface != nil {
		text = *a.Interface
	}
	switch {
	case a.Interface == nil && a.Verdict == policy.Drop && a.Kernel == Equal:
		return "no interface: the node drops the packet"
	case a.SourceAfter == nil:
		return text + ", from an address that is not known"
	case *a.SourceAfter == a.Source:
		return text + ", from its own address"
	}
	return fmt.Sprintf("%s, from %s", text, *a.SourceAfter)
}
