// Package monitoring tests the alerts and the dashboard in conf/monitoring with Prometheus' own tools.
package monitoring
