package portbudget

import (
	"fmt"
	"strings"
)

// The shares from which the check warns and fails.
const (
	warnFrom = 0.8
	failFrom = 0.95
)

// Check judges a report for `ip-masq-agent check`: status is "ok", "warn" or "fail".
func Check(r Report) (status, message, fix string) {
	if len(r.Destinations) == 0 {
		return "ok", "no destination takes more than 0 % of its source ports", ""
	}
	busiest := r.Destinations[0]
	message = fmt.Sprintf("%d of %d source ports (%.0f %%) are taken towards %s", busiest.Taken, busiest.Usable, 100*busiest.Share, busiest)
	if busiest.Share < warnFrom {
		return "ok", fmt.Sprintf("no destination takes more than %.0f %% of its source ports", 100*busiest.Share), ""
	}
	status = "warn"
	if busiest.Share >= failFrom {
		status = "fail"
		message += "; new connections there fail or are about to"
	}
	if len(busiest.Pods) > 0 {
		message += "; most of them by " + busiest.Pods[0].String()
	}
	return status, message, "let the pod keep connections open and reuse them (keep-alive, a pool); give masquerading more source ports (toPorts) " +
		"or more source addresses (egress with several sourceAddresses); keep randomFully on, which avoids failures while ports are short"
}

// String is as people read it: "tcp 192.0.2.2:443 from 198.51.100.1", or from several addresses.
func (d Destination) String() string {
	from := d.Translated.String()
	for _, address := range d.Pool[min(1, len(d.Pool)):] {
		from += ", " + address.String()
	}
	return fmt.Sprintf("%s %s from %s", d.Proto, endpoint(d.Dst.String(), d.DstPort), from)
}

// String is the pod's name where it is known, and its address.
func (p Pod) String() string {
	if p.Name == "" {
		return fmt.Sprintf("%s (%d)", p.Src, p.Taken)
	}
	return fmt.Sprintf("%s at %s (%d)", p.Pod, p.Src, p.Taken)
}

func endpoint(addr string, port uint16) string {
	if strings.Contains(addr, ":") {
		addr = "[" + addr + "]"
	}
	return fmt.Sprintf("%s:%d", addr, port)
}
