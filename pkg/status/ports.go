package status

// busyPorts is the share of its source ports from which on the text names a destination.
const busyPorts = 0.01

// printPorts names the destinations that take most of their source ports.
func (s Status) printPorts(p page) {
	if s.Ports == nil {
		return
	}
	if s.Ports.Highest < busyPorts {
		p.row("ports", "", "%s", "no destination takes 1 % of its source ports")
		return
	}
	label := "ports"
	for _, d := range s.Ports.Destinations {
		if d.Share < busyPorts {
			break
		}
		color := ""
		switch room(d.Share) {
		case Warn:
			color = yellow
		case Fail:
			color = red
		}
		p.row(label, color, "%3.0f %%  %d of %d  %s", 100*d.Share, d.Taken, d.Usable, d)
		label = ""
		for i, pod := range d.Pods {
			if i == 3 {
				p.row("", "", "         and more pods")
				break
			}
			p.row("", "", "         %s", pod)
		}
	}
}
