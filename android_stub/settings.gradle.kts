// For Android Studio. NOT RUN HERE: Gradle's Android plugin is on Google's Maven, which this project's machines do not reach.
// What is built and tested is pom.xml; these files say the same of versions, sources and packaging.
pluginManagement { repositories { google(); mavenCentral(); gradlePluginPortal() } }
dependencyResolutionManagement { repositories { google(); mavenCentral() } }
rootProject.name = "android-stub"
include(":core", ":engine", ":app")
