package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/socket"
	"github.com/ip-masq/ip-masq-cni/pkg/status"
	"github.com/ip-masq/ip-masq-cni/pkg/translog"
)

// whoDocument is what who answers. What is not known is null.
type whoDocument struct {
	APIVersion     string          `json:"apiVersion"`
	Found          bool            `json:"found"`
	Reason         *string         `json:"reason"` // why nothing was found, or no pod
	Pod            *attachment.Pod `json:"pod"`
	Network        *string         `json:"network"`
	ContainerID    *string         `json:"containerID"`
	Proto          *string         `json:"proto"`
	Src            *netip.Addr     `json:"src"`
	SrcPort        *uint16         `json:"srcPort"`
	Dst            *netip.Addr     `json:"dst"`
	DstPort        *uint16         `json:"dstPort"`
	TranslatedSrc  netip.Addr      `json:"translatedSrc"`
	TranslatedPort uint16          `json:"translatedPort"`
	Start          *time.Time      `json:"start"`
	End            *time.Time      `json:"end"`
	Bytes          *uint64         `json:"bytes"`
	From           *string         `json:"from"`
}

// Where an answer is from.
const (
	fromConntrack = "conntrack"
	fromLog       = "log"
)

// who names the pod behind a source address and port of this node.
func (p Program) who(o Options, args []string) error {
	translated, err := netip.ParseAddrPort(args[0])
	if err != nil || translated.Port() == 0 {
		return cli.Usage(fmt.Errorf("who %q: want ADDRESS:PORT, such as 192.0.2.1:40001 or [2001:db8::1]:40001", args[0]))
	}
	o.Who.Translated = netip.AddrPortFrom(translated.Addr().Unmap(), translated.Port())
	ctx, cancel := context.WithTimeout(context.Background(), syncTime)
	defer cancel()
	var answer whoDocument
	daemon, err := askDaemon(ctx, o, func(greeting) error { return nil }, http.MethodGet, "/v1/who?"+whoQuery(o.Who), &answer)
	if err == nil && !daemon.Responding {
		answer, err = findWho(o, nil)
	}
	if err != nil {
		return err
	}
	if err := p.print(o, answer, func() { _, _ = fmt.Fprint(p.Stdout, answer.text()) }); err != nil {
		return err
	}
	if !answer.Found {
		return cli.Exit(cli.StatusFailure)
	}
	return nil
}

func whoQuery(q translog.Query) string {
	v := url.Values{"address": {q.Translated.String()}}
	if q.Proto != "" {
		v.Set("proto", q.Proto)
	}
	if q.Dst.IsValid() {
		v.Set("dst", q.Dst.String())
		if q.DstPort != 0 {
			v.Set("dst", netip.AddrPortFrom(q.Dst, q.DstPort).String())
		}
	}
	if !q.At.IsZero() {
		v.Set("at", q.At.Format(time.RFC3339Nano))
	}
	return v.Encode()
}

// parseWho reads a destination and a time, which may both be empty.
func parseWho(dst, at string) (addr netip.Addr, port uint16, when time.Time, err error) {
	if dst != "" {
		if both, err := netip.ParseAddrPort(dst); err == nil {
			addr, port = both.Addr().Unmap(), both.Port()
		} else if addr, err = netip.ParseAddr(dst); err != nil {
			return addr, 0, when, fmt.Errorf("--dst %q: want ADDRESS or ADDRESS:PORT", dst)
		}
	}
	if at != "" {
		if when, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return addr, port, when, fmt.Errorf("--at %q: want a time such as 2026-01-31T12:00:00Z", at)
		}
	}
	return addr.Unmap(), port, when, nil
}

// serveWho answers GET /v1/who?address=&proto=&dst=&at=.
func (d *daemon) serveWho(w http.ResponseWriter, r *http.Request) {
	o := d.options
	values := r.URL.Query()
	translated, err := netip.ParseAddrPort(values.Get("address"))
	if err == nil {
		o.Who.Dst, o.Who.DstPort, o.Who.At, err = parseWho(values.Get("dst"), values.Get("at"))
	}
	if err != nil {
		socket.Refuse(w, http.StatusBadRequest, err)
		return
	}
	o.Who.Translated, o.Who.Proto = netip.AddrPortFrom(translated.Addr().Unmap(), translated.Port()), values.Get("proto")
	answer, err := findWho(o, d.translations.Load())
	if err != nil {
		socket.Refuse(w, http.StatusInternalServerError, err)
		return
	}
	socket.Answer(w, answer)
}

// findWho looks among the open connections, and then in the log.
func findWho(o Options, logger *translog.Logger) (whoDocument, error) {
	q := o.Who
	answer := whoDocument{APIVersion: status.APIVersion, TranslatedSrc: q.Translated.Addr(), TranslatedPort: q.Translated.Port()}
	live, err := translog.Live(q, logger, node.RecordsDir(o.StateDir))
	if err != nil {
		return answer, err
	}
	live = openAt(live, q.At)
	if len(live) > 0 {
		answer.take(live, fromConntrack)
		return answer, nil
	}
	if o.Translations.Path == "" || o.Translations.Path == "-" {
		answer.because("no open connection has this source%s, and there is no log of those that are over (--translation-log)", notOurs(q.Translated.Addr()))
		return answer, nil
	}
	past, err := translog.Search(q, o.Translations.Path, o.Translations.MaxFiles)
	if len(past.Found) > 0 {
		answer.take(past.Found, fromLog)
		return answer, nil
	}
	if err != nil {
		return answer, err
	}
	switch {
	case past.From.IsZero():
		answer.because("no open connection has this source%s, and the log has no line yet", notOurs(q.Translated.Addr()))
	case !q.At.IsZero() && q.At.Before(past.From):
		answer.because("the log begins at %s, which is later", past.From.Format(time.RFC3339))
	default:
		answer.because("neither an open connection nor a line of the log, which goes from %s to %s, has this source%s",
			past.From.Format(time.RFC3339), past.To.Format(time.RFC3339), notOurs(q.Translated.Addr()))
	}
	return answer, nil
}

// openAt leaves out connections that began later. Of one whose start is not known nothing tells that it did.
func openAt(live []translog.Connection, at time.Time) (open []translog.Connection) {
	for _, c := range live {
		if at.IsZero() || !c.Start.After(at) {
			open = append(open, c)
		}
	}
	return open
}

// notOurs says what may be wrong with an address.
func notOurs(addr netip.Addr) string {
	local, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, address := range local {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil && prefix.Addr().Unmap() == addr {
			return ""
		}
	}
	return fmt.Sprintf(" (%s is no address of this node)", addr)
}

func (a *whoDocument) because(format string, args ...any) {
	reason := fmt.Sprintf(format, args...)
	a.Reason = &reason
}

// take answers with the youngest of the connections that match, if they are all of one pod: a port is used for many destinations
// at the same time.
func (a *whoDocument) take(all []translog.Connection, from string) {
	c := all[0]
	for _, other := range all[1:] {
		if other.Src.Addr() != c.Src.Addr() || (other.Owner == nil) != (c.Owner == nil) || other.Owner != nil && *other.Owner != *c.Owner {
			a.because("%d connections of several pods have this source, to %s and %s among others: say which one by --dst or --proto", len(all), c.Dst, other.Dst)
			return
		}
		if other.Start.After(c.Start) {
			c = other
		}
	}
	src, srcPort, dst, dstPort := c.Src.Addr(), c.Src.Port(), c.Dst.Addr(), c.Dst.Port()
	a.Found, a.From, a.Proto, a.Bytes = true, &from, &c.Proto, c.Bytes
	a.Src, a.SrcPort, a.Dst, a.DstPort = &src, &srcPort, &dst, &dstPort
	a.Start, a.End = known(c.Start), known(c.End)
	if c.Owner == nil {
		a.because("which pod had %s when the connection began is not known", src)
		return
	}
	a.Network, a.ContainerID = &c.Owner.Network, &c.Owner.ContainerID
	if c.Owner.Pod.Name != "" {
		a.Pod = &c.Owner.Pod
	}
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// text is the answer for people.
func (a whoDocument) text() string {
	translated := netip.AddrPortFrom(a.TranslatedSrc, a.TranslatedPort)
	if !a.Found {
		return fmt.Sprintf("%s: none: %s\n", translated, *a.Reason)
	}
	who := "a pod that is not known"
	switch {
	case a.Pod != nil:
		who = a.Pod.String()
	case a.ContainerID != nil:
		who = "container " + *a.ContainerID
	}
	text := fmt.Sprintf("%s: %s\n", translated, who)
	row := func(name, format string, args ...any) {
		text += fmt.Sprintf("  %-12s%s\n", name, fmt.Sprintf(format, args...))
	}
	row("connection", "%s %s -> %s", *a.Proto, netip.AddrPortFrom(*a.Src, *a.SrcPort), netip.AddrPortFrom(*a.Dst, *a.DstPort))
	if a.Network != nil {
		row("network", "%s, container %s", *a.Network, *a.ContainerID)
	}
	if a.Start != nil {
		row("since", "%s", a.Start.Format(time.RFC3339Nano))
	}
	if a.End != nil {
		row("until", "%s", a.End.Format(time.RFC3339Nano))
	}
	if a.Bytes != nil {
		row("bytes", "%s", status.Size(*a.Bytes))
	}
	if a.Reason != nil {
		row("note", "%s", *a.Reason)
	}
	row("from", "%s", *a.From)
	return text
}
