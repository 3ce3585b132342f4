import io.aeron.archive.Archive;
import io.aeron.archive.ArchiveThreadingMode;
import io.aeron.archive.client.AeronArchive;
import io.aeron.ExclusivePublication;
import io.aeron.Image;
import io.aeron.cluster.ClusteredMediaDriver;
import io.aeron.cluster.ConsensusModule;
import io.aeron.cluster.client.AeronCluster;
import io.aeron.cluster.client.EgressListener;
import io.aeron.cluster.codecs.CloseReason;
import io.aeron.cluster.service.ClientSession;
import io.aeron.cluster.service.Cluster;
import io.aeron.cluster.service.ClusteredService;
import io.aeron.cluster.service.ClusteredServiceContainer;
import io.aeron.driver.MediaDriver;
import io.aeron.driver.ThreadingMode;
import io.aeron.logbuffer.Header;
import java.io.File;
import java.util.Arrays;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.NoOpLock;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * One member of an echo service on Aeron Cluster, and a load on three of them. Nothing is matched.
 *
 * <p>EchoCluster member NUMBER DRIVER DIRECTORY SYNC MEMBERS: DRIVER is the folder of the media driver, DIRECTORY that of the log,
 * SYNC the level at which files are synced (0 never, 1 data), MEMBERS as the consensus module takes them. It ends when its
 * standard input does. EchoCluster load DRIVER ENDPOINTS SESSIONS IN-FLIGHT WARM-UP SECONDS sends messages of 64 bytes and
 * prints one line of JSON.
 */
public final class EchoCluster {
    private static final int MESSAGE_SIZE = 64;
    private static final int MOST_LATENCIES = 1 << 24;

    private static final class Echo implements ClusteredService {
        private Cluster cluster;

        @Override
        public void onStart(final Cluster started, final Image snapshot) {
            cluster = started;
        }

        @Override
        public void onSessionMessage(
                final ClientSession session, final long time, final DirectBuffer buffer, final int offset,
                final int length, final Header header) {
            if (session != null) {
                while (session.offer(buffer, offset, length) < 0 && !session.isClosing()) {
                    cluster.idleStrategy().idle();
                }
            }
        }

        @Override
        public void onSessionOpen(final ClientSession session, final long time) {}

        @Override
        public void onSessionClose(final ClientSession session, final long time, final CloseReason reason) {}

        @Override
        public void onTimerEvent(final long correlation, final long time) {}

        @Override
        public void onTakeSnapshot(final ExclusivePublication publication) {}

        @Override
        public void onRoleChange(final Cluster.Role role) {}

        @Override
        public void onTerminate(final Cluster ended) {}
    }

    /** Latencies of the messages sent and answered in the measured time. */
    private static final class Load implements EgressListener {
        private final long[] latencies = new long[MOST_LATENCIES];
        private final int[] underWay;
        private long begin = Long.MAX_VALUE;
        private long end = Long.MAX_VALUE;
        private int count;

        Load(final int sessions) {
            underWay = new int[sessions];
        }

        @Override
        public void onMessage(
                final long session, final long time, final DirectBuffer buffer, final int offset, final int length,
                final Header header) {
            final long now = System.nanoTime();
            final long sent = buffer.getLong(offset);
            underWay[(int) buffer.getLong(offset + 8)]--;
            if (sent >= begin && now < end && count < MOST_LATENCIES) {
                latencies[count++] = now - sent;
            }
        }

        private double at(final double share) {
            return latencies[(int) (share * (count - 1))] / 1e3;
        }
    }

    private static void member(
            final int number, final String aeron, final String directory, final int sync, final String members) {
        final String host = "127.0.0.1";
        final String archiveEndpoint = members.split("\\|")[number].split(",")[5];
        final MediaDriver.Context driver = new MediaDriver.Context()
                .aeronDirectoryName(aeron)
                .threadingMode(ThreadingMode.SHARED)
                .dirDeleteOnStart(true)
                .dirDeleteOnShutdown(true)
                .termBufferSparseFile(true);
        final Archive.Context archive = new Archive.Context()
                .aeronDirectoryName(aeron)
                .archiveDir(new File(directory, "archive"))
                .controlChannel("aeron:udp?endpoint=" + archiveEndpoint)
                .replicationChannel("aeron:udp?endpoint=" + host + ":0")
                .localControlChannel("aeron:ipc?term-length=64k")
                .recordingEventsEnabled(false)
                .fileSyncLevel(sync)
                .catalogFileSyncLevel(sync)
                .threadingMode(ArchiveThreadingMode.SHARED);
        final AeronArchive.Context archiveClient = new AeronArchive.Context()
                .lock(NoOpLock.INSTANCE)
                .controlRequestChannel(archive.localControlChannel())
                .controlRequestStreamId(archive.localControlStreamId())
                .controlResponseChannel(archive.localControlChannel())
                .aeronDirectoryName(aeron);
        final ConsensusModule.Context module = new ConsensusModule.Context()
                .clusterMemberId(number)
                .clusterMembers(members)
                .clusterDir(new File(directory, "cluster"))
                .archiveContext(archiveClient.clone())
                .replicationChannel("aeron:udp?endpoint=" + host + ":0")
                .ingressChannel("aeron:udp?term-length=1m")
                .fileSyncLevel(sync)
                .maxConcurrentSessions(2048);
        final ClusteredServiceContainer.Context service = new ClusteredServiceContainer.Context()
                .aeronDirectoryName(aeron)
                .archiveContext(archiveClient.clone())
                .clusterDir(new File(directory, "cluster"))
                .clusteredService(new Echo());
        ClusteredMediaDriver.launch(driver, archive, module);
        ClusteredServiceContainer.launch(service);
    }

    private static double cpuSeconds() {
        final java.lang.management.OperatingSystemMXBean bean =
                java.lang.management.ManagementFactory.getOperatingSystemMXBean();
        return ((com.sun.management.OperatingSystemMXBean) bean).getProcessCpuTime() / 1e9;
    }

    private static void load(
            final String directory, final String endpoints, final int sessions, final int inFlight, final double warmUp,
            final double seconds) {
        final Load load = new Load(sessions);
        final AeronCluster[] clients = new AeronCluster[sessions];
        final MediaDriver driver = MediaDriver.launch(new MediaDriver.Context()
                .aeronDirectoryName(directory)
                .threadingMode(ThreadingMode.SHARED)
                .dirDeleteOnStart(true)
                .dirDeleteOnShutdown(true)
                .termBufferSparseFile(true));
        try (io.aeron.Aeron shared =
                io.aeron.Aeron.connect(new io.aeron.Aeron.Context().aeronDirectoryName(directory))) {
            for (int at = 0; at < sessions; at++) {
                clients[at] = AeronCluster.connect(new AeronCluster.Context()
                        .aeron(shared)
                        .ownsAeronClient(false)
                        .egressListener(load)
                        .egressChannel("aeron:udp?endpoint=127.0.0.1:0|term-length=1m")
                        .ingressChannel("aeron:udp?term-length=1m")
                        .ingressEndpoints(endpoints)
                        .messageTimeoutNs(60_000_000_000L));
            }
            load.begin = System.nanoTime() + (long) (warmUp * 1e9);
            load.end = load.begin + (long) (seconds * 1e9);
            final double used = drive(load, clients, inFlight);
            if (load.count == 0) {
                throw new IllegalStateException("no message was answered");
            }
            Arrays.sort(load.latencies, 0, load.count);
            System.out.printf(
                    "{\"acknowledged\": %d, \"seconds\": %f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"cpu_s\": %.3f}%n",
                    load.count, seconds, load.at(0.5), load.at(0.99), used);
        }
        driver.close();
    }

    /** Send and receive until the end; return the processor time of the measured seconds. */
    private static double drive(final Load load, final AeronCluster[] clients, final int inFlight) {
        final UnsafeBuffer message = new UnsafeBuffer(new byte[MESSAGE_SIZE]);
        double before = 0;
        boolean measuring = false;
        long kept = System.nanoTime();
        for (long now = System.nanoTime(); now < load.end; now = System.nanoTime()) {
            if (!measuring && now >= load.begin) {
                measuring = true;
                before = cpuSeconds();
            }
            boolean worked = false;
            for (int at = 0; at < clients.length; at++) {
                while (load.underWay[at] < inFlight) {
                    message.putLong(0, System.nanoTime());
                    message.putLong(8, at);
                    if (clients[at].offer(message, 0, MESSAGE_SIZE) < 0) {
                        break;
                    }
                    load.underWay[at]++;
                    worked = true;
                }
                worked |= clients[at].pollEgress() > 0;
            }
            if (now - kept > 500_000_000L) {
                kept = now;
                for (final AeronCluster client : clients) {
                    client.sendKeepAlive();
                }
            }
            if (!worked) {
                Thread.yield();
            }
        }
        return cpuSeconds() - before;
    }

    public static void main(final String[] arguments) throws Exception {
        if (arguments[0].equals("load")) {
            load(
                    arguments[1], arguments[2], Integer.parseInt(arguments[3]), Integer.parseInt(arguments[4]),
                    Double.parseDouble(arguments[5]), Double.parseDouble(arguments[6]));
        } else {
            member(
                    Integer.parseInt(arguments[1]), arguments[2], arguments[3], Integer.parseInt(arguments[4]),
                    arguments[5]);
            while (System.in.read() >= 0) {
                continue;
            }
        }
        // Neither the driver's nor the cluster's threads keep the process.
        Runtime.getRuntime().halt(0);
    }
}
